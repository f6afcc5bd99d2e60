"""The demonstration in a real ComfyUI: the shipped workflow through its API, with the pictures of `livetalk demo`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from livetalk_core.media import open_sound, read_video
from livetalk_core.production import Demonstration, Exhibits, Report
from livetalk_core.production.request import BUNDLED_SPEECH

from . import ROOT
from .client import Outcome, run_prompt
from .server import ComfyServer

_WORKFLOW = ROOT / "workflows" / "api" / "talking_avatar.api.json"
_SINK = "6"


def make_demo(folder: Path) -> Demonstration:
    """Run the talking avatar headlessly and leave video, report, contact sheet, plot and summary in `folder`.

    Raises:
        RuntimeError: ComfyUI does not start, or the workflow fails.
    """
    prompt = json.loads(_WORKFLOW.read_text(encoding="utf-8"))
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": [_SINK, 2]}}
    with ComfyServer() as server:
        print(f"ComfyUI answers at {server.url} after {server.start_seconds:.0f} s; running {_WORKFLOW.name}")
        outcome = run_prompt(server.url, prompt, timeout=1800.0)
        if outcome.status != "success":
            raise RuntimeError(outcome.error.get("exception_message", outcome.status))
        folder.mkdir(parents=True, exist_ok=True)
        shown = outcome.outputs["7"]["images"][0]
        shutil.copyfile(server.base / shown["type"] / shown["subfolder"] / shown["filename"], folder / "demo.mp4")
    return _pictures(folder, outcome)


def _pictures(folder: Path, outcome: Outcome) -> Demonstration:
    text = outcome.outputs["report"]["text"][0]
    (folder / "report.json").write_text(text, encoding="utf-8")
    report = _report(json.loads(text))
    exhibits = Exhibits()
    with open_sound(BUNDLED_SPEECH) as sound:
        for frames in _blocks(folder / "demo.mp4", report.fps):
            exhibits.show(frames, sound.read(len(frames) * sound.sample_rate // report.fps))
    return exhibits.leave(folder, report)


def _report(plain: dict[str, Any]) -> Report:
    known = {name: plain[name] for name in Report.__struct_fields__}
    return msgspec.convert(known, Report)


def _blocks(video: Path, length: int) -> Iterator[NDArray[np.uint8]]:
    frames = read_video(video)
    while block := list(islice(frames, length)):
        yield np.stack(block)
