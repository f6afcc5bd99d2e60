"""Ctrl-C, in a process of its own: what was made stays, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_tools import RATE, livetalk, speech, write_wav

from livetalk_core.media import probe_video, read_video

pytestmark = pytest.mark.faults
SECONDS = 0.5
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX systems")
def test_ctrl_c_leaves_a_playable_file_that_can_be_continued(tiny_model_folder: Path, tmp_path: Path) -> None:
    """The sound comes through a pipe that stays open, so the chunks prove streaming as well."""
    out, state, report_file = (tmp_path / name for name in ("live.mp4", "live.state", "live.json"))
    command = [
        sys.executable, "-m", "livetalk_core.cli", "generate", "--audio", "-", "--out", out, "--model",
        tiny_model_folder, "--size", "32x32", "--steps", "1", "--dtype", "fp32", "--state", state, "--report",
        report_file,
    ]  # fmt: skip
    # Sums depend on the number of threads: the child gets as many as the test that it is compared in has.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    samples = speech(SECONDS)
    with subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, cwd=tmp_path,
        # Whoever runs the tests in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(samples[: round(0.4 * RATE)].astype("<i2").tobytes())
        process.stdin.flush()
        deadline = time.monotonic() + 300
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        # The pipe stays open until the process has gone: its end would finish the film in good order.
        process.wait(timeout=200)
        _, errors = process.communicate(timeout=200)
    text = errors.decode()
    assert process.returncode == 130, text
    assert "Interrupted" in text and "Traceback" not in text
    report = json.loads(report_file.read_text())
    assert report["status"] == "interrupted" and report["chunks"]
    assert probe_video(out).frames == report["frames"] == len(list(read_video(out)))
    assert {path.name for path in tmp_path.iterdir()} == {"live.mp4", "live.state", "live.json"}
    arguments = ["--audio", write_wav(tmp_path / "talk.wav", samples), "--model", tiny_model_folder, "--dtype", "fp32"]
    rest = livetalk("generate", *arguments, "--out", tmp_path / "rest.mkv", "--resume", state, "--json").json
    size = ("--size", "32x32", "--steps", 1)
    whole = livetalk("generate", *arguments, *size, "--out", tmp_path / "whole.mkv", "--json").json
    assert digests(report) + digests(rest) == digests(whole)


def digests(report: dict[str, Any]) -> list[str]:
    return [chunk["sha256"] for chunk in report["chunks"]]
