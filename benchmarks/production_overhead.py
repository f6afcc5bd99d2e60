"""What a daemon costs a film: `python benchmarks/production_overhead.py [--chunks N] [--rounds N]`.

The same film of the embedded model is made in this process and on one and two ranks, by turns in one run, each with
its model loaded already and one thread per process. Printed per chunk, medians over the rounds: wall clock from the
second chunk to the last, processor time of this process and of the ranks, and both relative to this process alone.
Where other programs take the cores, only the processor time means something.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from livetalk_core.daemon.daemon_config import DaemonConfig
from livetalk_core.media import open_sound
from livetalk_core.production import Observer, Recording, VideoRequest, make_backend, produce
from livetalk_core.production.request import BUNDLED_SPEECH

SLICE = 17_920
RATE = 16_000


@dataclass(frozen=True)
class Sample:
    """Seconds per chunk."""

    wall: float
    here: float
    ranks: float
    first: float


class Clock(Observer):
    """When chunks come."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.begun = 0.0

    def phase(self, name: str) -> None:
        if name == "preparing":
            self.begun = time.perf_counter()

    def chunk(self, record: Any, frames: Any, samples: Any) -> None:
        self.times.append(time.perf_counter())


def _cpu(pids: tuple[int, ...]) -> float:
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def _run(request: VideoRequest, backend: Any, chunks: int) -> Sample:
    clock, own = Clock(), psutil.Process().pid
    others = tuple(pid for pid in backend.worker_pids if pid != own)
    before = (_cpu((own,)), _cpu(others))
    report = produce(request, clock, backend)
    assert len(report.chunks) == chunks
    spent = [(after - start) / chunks for after, start in zip((_cpu((own,)), _cpu(others)), before, strict=True)]
    wall = (clock.times[-1] - clock.times[0]) / (chunks - 1)
    return Sample(wall, spent[0], spent[1], clock.times[0] - clock.begun)


def main() -> None:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worlds", type=int, nargs="*", default=[1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with open_sound(BUNDLED_SPEECH, RATE) as sound:
        samples = np.resize(sound.read(10**7), given.chunks * SLICE)
    with tempfile.TemporaryDirectory() as folder:
        daemon = DaemonConfig(options={"threads": "1"}, runtime_root=folder)
        request = VideoRequest(Recording(samples, RATE), Path(folder) / "film.mp4", device="cpu", daemon=daemon)
        kinds = {"here": request, **{f"{n} ranks": replace(request, world_size=n) for n in given.worlds}}
        backends = {name: make_backend(each) for name, each in kinds.items()}
        taken: dict[str, list[Sample]] = {name: [] for name in kinds}
        for turn in range(given.rounds + 1):
            for name, each in kinds.items():
                sample = _run(each, backends[name], given.chunks) if turn else _warm(each, backends[name])
                if sample is not None:
                    taken[name].append(sample)
        for backend in backends.values():
            backend.close()
    _show(taken)


def _warm(request: VideoRequest, backend: Any) -> None:
    produce(replace(request, max_seconds=1.0), None, backend)


def _show(taken: dict[str, list[Sample]]) -> None:
    print(f"{'':10}{'wall':>8}{'first':>8}{'cpu here':>10}{'cpu ranks':>11}{'wall ratio':>12}{'cpu ratio':>11}")
    reference = taken["here"]
    for name, samples in taken.items():
        median = [statistics.median(getattr(s, field) for s in samples) for field in ("wall", "first", "here", "ranks")]
        ratio = statistics.median(s.wall / r.wall for s, r in zip(samples, reference, strict=True))
        work = statistics.median(
            (s.here + s.ranks) / (r.here + r.ranks) for s, r in zip(samples, reference, strict=True)
        )
        print(f"{name:10}{median[0]:8.3f}{median[1]:8.3f}{median[2]:10.3f}{median[3]:11.3f}{ratio:12.2f}{work:11.2f}")


if __name__ == "__main__":
    main()
