"""Ctrl-C, in a process of its own: what was made stays, and goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cli_tools import RATE, interrupted, livetalk, speech, write_wav

from livetalk_core.media import probe_video, read_video

pytestmark = pytest.mark.faults
SECONDS = 0.5


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX systems")
def test_ctrl_c_leaves_a_playable_file_that_can_be_continued(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The sound comes through a pipe that stays open, so the chunks prove streaming as well."""
    out, state, report_file = (tmp_path / name for name in ("live.mp4", "live.state", "live.json"))
    samples, size = speech(SECONDS), ("--size", "32x32", "--steps", 1)
    model = ("--model", tiny_model_folder, "--dtype", "fp32")
    code, text = interrupted(samples[: round(0.4 * RATE)], state, "--out", out, *model, *size, "--report", report_file)
    assert code == 130, text
    assert "Interrupted" in text and "Traceback" not in text
    report = json.loads(report_file.read_text())
    assert report["status"] == "interrupted" and report["chunks"]
    assert probe_video(out).frames == report["frames"] == len(list(read_video(out)))
    assert {path.name for path in tmp_path.iterdir()} == {"live.mp4", "live.state", "live.json"}
    arguments = ["--audio", write_wav(tmp_path / "talk.wav", samples), *model]
    rest = livetalk("generate", *arguments, "--out", tmp_path / "rest.mkv", "--resume", state, "--json").json
    whole = livetalk("generate", *arguments, *size, "--out", tmp_path / "whole.mkv", "--json").json
    assert digests(report) + digests(rest) == digests(whole)


def digests(report: dict[str, Any]) -> list[str]:
    return [chunk["sha256"] for chunk in report["chunks"]]
