"""What ComfyUI costs: time per chunk beside the command line's, and memory over a long speech.

    python -m benchmarks.comfyui overhead [--rounds 3]     # ratio, both ways measured in turn
    python -m benchmarks.comfyui soak [--minutes 10]       # memory of host and ranks, sound against picture at the end

Needs a host: make comfy-setup.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import tempfile
import threading
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from livetalk_core.media import open_sound, probe_video
from livetalk_core.production.request import BUNDLED_PORTRAIT, BUNDLED_SPEECH
from tools.comfy_host import ROOT, host_folder
from tools.comfy_host.client import run_prompt
from tools.comfy_host.server import ComfyServer

_RATE = 16_000


def graph(**sampler: Any) -> dict[str, Any]:
    """The talking avatar, with its report shown."""
    prompt: dict[str, Any] = json.loads((ROOT / "workflows" / "api" / "talking_avatar.api.json").read_text())
    prompt["5"]["inputs"].update(sampler)
    prompt["report"] = {"class_type": "PreviewAny", "inputs": {"source": ["6", 2]}}
    return prompt


def per_chunk(report: dict[str, Any]) -> float:
    """Wall-clock seconds from one chunk to the next, writing and waiting included."""
    return (report["seconds"]["total"] - report["seconds"]["first_chunk"]) / (len(report["chunks"]) - 1)


def overhead(rounds: int) -> None:
    """Time per chunk both ways, in turn, on one daemon each."""
    python, ours, theirs = host_folder() / "venv" / "bin" / "python", [], []
    with ComfyServer() as server, tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [python, "-m", "livetalk_core.cli", "generate", "--world-size", "1", "--audio", BUNDLED_SPEECH,
                   "--image", BUNDLED_PORTRAIT, "--out", Path(folder) / "x.mp4", "--report", report]  # fmt: skip
        for number in range(rounds):
            seed = 9999 + number
            outcome = run_prompt(server.url, graph(seed=seed), timeout=1800.0)
            ours.append(per_chunk(json.loads(outcome.outputs["report"]["text"][0])))
            subprocess.run([*map(str, command), "--seed", str(seed)], cwd=ROOT, check=True, capture_output=True)
            theirs.append(per_chunk(json.loads(report.read_text())))
            print(f"round {number + 1}: {ours[-1]:.3f} s per chunk, command line {theirs[-1]:.3f} s", flush=True)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"ComfyUI / command line, median of {rounds}: {ratio:.3f}")


def soak(minutes: float) -> None:
    """A long speech; memory once a second."""
    with tempfile.TemporaryDirectory(prefix="livetalk-soak-") as folder:
        base = Path(folder)
        with ComfyServer(base=base) as server:
            _long_speech(base / "input" / "long.wav", minutes)
            prompt = graph()
            prompt["3"]["inputs"]["audio"] = "long.wav"
            meter = _Meter(server.pid)
            meter.start()
            began = time.monotonic()
            outcome = run_prompt(server.url, prompt, timeout=7200.0)
            seconds = time.monotonic() - began
            meter.done.set()
            meter.join()
            shown = outcome.outputs["7"]["images"][0]
            info = probe_video(base / shown["type"] / shown["subfolder"] / shown["filename"])
            print(f"{outcome.status}: {info.seconds:.2f} s of video, {info.frames} frames, in {seconds:.0f} s")
            print(f"sound ends at {info.audio_seconds:.3f} s, picture at {info.seconds:.3f} s")
            print(f"first chunk after {outcome.when('livetalk.chunk'):.1f} s")
            for name, values in meter.resident.items():
                quarter = max(1, len(values) // 4)
                second, last = values[quarter : 2 * quarter], values[-quarter:]
                print(f"{name}: {np.mean(second):.0f} MiB in the second quarter, {np.mean(last):.0f} MiB in the last")


class _Meter(threading.Thread):
    """Resident memory of the host and of its ranks, MiB, once a second."""

    def __init__(self, host: int) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.resident: dict[str, list[float]] = {"host": [], "daemon and ranks": []}
        self._host = psutil.Process(host)

    def run(self) -> None:
        while not self.done.wait(1.0):
            ranks = sum(child.memory_info().rss for child in self._host.children(recursive=True))
            self.resident["host"].append(self._host.memory_info().rss / 2**20)
            self.resident["daemon and ranks"].append(ranks / 2**20)


def _long_speech(path: Path, minutes: float) -> None:
    with open_sound(BUNDLED_SPEECH) as sound:
        once = np.concatenate(list(sound))
    count = round(minutes * 60 * _RATE)
    samples = np.tile(once, -(-count // len(once)))[:count]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def main() -> None:
    """Entry of the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "soak"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    if options.what == "overhead":
        overhead(options.rounds)
    else:
        soak(options.minutes)


if __name__ == "__main__":
    main()
