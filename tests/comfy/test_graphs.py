"""Graphs in a real ComfyUI: the same frames as the command line, what runs again, what is told on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import report_of, with_report

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
aiohttp = pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")


def run(server: Any, prompt: dict[str, Any], **options: Any) -> Any:
    from tools.comfy_host.client import run_prompt

    return run_prompt(server.url, prompt, timeout=500.0, **options)


def test_frames_are_those_of_the_command_line(server: Any, avatar: dict[str, Any], tmp_path: Path) -> None:
    from tools.comfy_host import ROOT, host_folder

    outcome = run(server, with_report(avatar))
    assert outcome.status == "success", outcome.error
    python = host_folder() / "venv" / "bin" / "python"
    command = [
        python, "-m", "livetalk_core.cli", "generate", "--audio", ROOT / "livetalk_core" / "assets" / "demo.wav",
        "--image", ROOT / "livetalk_core" / "assets" / "portrait.png", "--max-seconds", "2", "--world-size", "1",
        "--out", tmp_path / "cli.mp4", "--report", tmp_path / "cli.json",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, timeout=400, capture_output=True)
    ours, theirs = report_of(outcome), json.loads((tmp_path / "cli.json").read_text())
    assert [chunk["sha256"] for chunk in ours["chunks"]] == [chunk["sha256"] for chunk in theirs["chunks"]]
    for name in ("seed", "width", "height", "steps", "shift", "mode", "revision", "dtype", "frames"):
        assert ours[name] == theirs[name], name
    chunks = outcome.told("livetalk.chunk")
    assert [chunk["sha256"] for chunk in chunks] == [chunk["sha256"] for chunk in theirs["chunks"]]
