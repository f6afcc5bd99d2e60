"""Runs of a stream: what the view is told and on which thread, stopping, and the model between runs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import RATE, speech

from livetalk_core.errors import AudioError
from livetalk_core.media import probe_video
from livetalk_core.production import ChunkRecord, Recording, VideoRequest, produce
from livetalk_core.production.backend import Backend
from nodes import planning, requests
from nodes.keeper import Keeper
from nodes.recipes import AudioRecipe, ModelRecipe, StreamRecipe
from nodes.runner import Reins, VideoShape, run
from nodes.stream_run import run_stream

pytestmark = pytest.mark.unit
EMBEDDED = ModelRecipe("embedded", None)


class Halt(Exception):  # noqa: N818 - stands for ComfyUI's own
    """The user pressed Stop."""


class Watcher:
    """Notes everything; stops when `stop_at` is told."""

    def __init__(self, stop_at: str = "") -> None:
        self.told: list[str] = []
        self.records: list[ChunkRecord] = []
        self.shape: VideoShape | None = None
        self.shares: list[float] = []
        self.threads: set[int] = set()
        self.stop_at = stop_at

    def poll(self) -> None:
        self.threads.add(threading.get_ident())
        if self.stop_at and self.stop_at in self.told:
            raise Halt

    def phase(self, name: str) -> None:
        self.told.append(name)

    def opened(self, shape: VideoShape) -> None:
        self.shape = shape
        self.told.append("opened")

    def progress(self, done: float, total: float) -> None:
        self.shares.append(done / total)
        self.told.append("step")

    def chunk(self, record: ChunkRecord, frames: np.ndarray, samples: np.ndarray) -> None:
        self.threads.add(threading.get_ident())
        self.records.append(record)
        self.told.append("chunk")


def stream(seconds: float = 1.5, **changes: Any) -> StreamRecipe:
    samples = speech(seconds).astype(np.float32) / 32768
    image = torch.full((1, 64, 64, 3), 0.5)
    planned = planning.plan_stream(
        EMBEDDED, AudioRecipe(samples, RATE), image, prompt="", seed=5, size=(64, 64), steps=2, shift=0.0,
        chunk=(0, 0), max_seconds=0.0,
    )  # fmt: skip
    return replace(planned, **changes)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Daemons are tested with a real ComfyUI, in tests/comfy."""
    monkeypatch.setattr(requests, "runs_in_daemon", lambda model: False)


@pytest.fixture(scope="module")
def keeper() -> Keeper:
    return Keeper()


def test_a_run_makes_what_a_production_makes(tmp_path: Path, keeper: Keeper) -> None:
    recipe, watcher = stream(), Watcher()
    report = run_stream(recipe, tmp_path / "node.mp4", watcher, keeper)
    recording = Recording(recipe.audio.samples, RATE)
    plain = produce(
        VideoRequest(recording, tmp_path / "plain.mp4", image=recipe.picture, seed=5, size=(64, 64), steps=2)
    )
    assert [chunk.sha256 for chunk in report.chunks] == [chunk.sha256 for chunk in plain.chunks]
    assert watcher.records == report.chunks and len(report.chunks) == 2
    assert watcher.shape == VideoShape(64, 64, 25, RATE, 2)
    assert watcher.shares == sorted(watcher.shares) and watcher.shares[0] > 0 and watcher.shares[-1] < 1
    assert watcher.threads == {threading.get_ident()}
    assert probe_video(tmp_path / "node.mp4").frames == report.frames == 38


@pytest.mark.parametrize("moment", ["checking", "loading", "opened", "step", "chunk"])
def test_stopping_leaves_nothing_and_the_next_run_is_clean(tmp_path: Path, moment: str) -> None:
    keeper = Keeper()
    with pytest.raises(Halt):
        run_stream(stream(), tmp_path / "stopped.mp4", Watcher(moment), keeper)
    report = run_stream(stream(1.0), tmp_path / "next.mp4", Watcher(), keeper)
    assert report.status == "complete"
    assert [path.name for path in tmp_path.iterdir()] == ["next.mp4"]


def test_an_error_arrives_as_it_was_raised(tmp_path: Path, keeper: Keeper) -> None:
    silent = AudioRecipe(np.zeros(0, np.float32), RATE)
    with pytest.raises(AudioError):
        run_stream(stream(audio=silent), tmp_path / "out.mp4", Watcher(), keeper)
    assert not list(tmp_path.iterdir()) and not keeper.status()["busy"]


class CountedBackend:
    """Only counts how it is treated."""

    def __init__(self) -> None:
        self.closed = 0
        self.worker_pids = (1,)

    def close(self) -> None:
        self.closed += 1


def use(keeper: Keeper, recipe: ModelRecipe) -> Any:
    made: Backend = CountedBackend()  # type: ignore[assignment]
    with keeper.using(recipe, lambda: made, lambda: None) as backend:
        return backend


def test_the_model_stays_until_another_is_asked_for_or_it_is_released() -> None:
    keeper = Keeper()
    first = use(keeper, EMBEDDED)
    assert use(keeper, EMBEDDED) is first and first.closed == 0
    second = use(keeper, replace(EMBEDDED, stamp="changed"))
    assert second is not first and first.closed == 1
    assert keeper.status() == {"busy": False, "model": "embedded", "gpus": 1, "processes": [1]}
    assert keeper.release() == "released" and second.closed == 1
    assert keeper.release() == "nothing was loaded" and keeper.status() == {"busy": False, "model": None}


def test_a_model_whose_processes_have_ended_is_not_held() -> None:
    keeper = Keeper()
    assert not keeper.holds(EMBEDDED)
    backend = use(keeper, EMBEDDED)
    assert keeper.holds(EMBEDDED) and not keeper.holds(replace(EMBEDDED, gpus=2))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    backend.worker_pids = (1, ended.pid)
    assert not keeper.holds(EMBEDDED) and keeper.status()["model"] is None


@pytest.mark.parametrize("seconds", [0.1, 0.8])
def test_work_that_finishes_though_it_was_told_to_stop_leaves_nothing(tmp_path: Path, seconds: float) -> None:
    output = tmp_path / "out.mp4"

    def work(reins: Reins) -> None:
        reins.tell(lambda view: view.phase("finishing"))
        time.sleep(seconds)
        output.write_bytes(b"video")

    with pytest.raises(Halt):
        run(work, output, Watcher(stop_at="finishing"))
    for thread in threading.enumerate():
        if thread.name == "livetalk-run":
            thread.join()
    assert not output.exists()


def test_a_release_during_a_run_waits_for_its_end() -> None:
    keeper = Keeper()
    backend: Any = CountedBackend()
    with keeper.using(EMBEDDED, lambda: backend, lambda: None):
        assert "when the running video is done" in keeper.release()
        assert backend.closed == 0 and keeper.status()["busy"]
    assert backend.closed == 1 and not keeper.status()["busy"]


def test_a_second_run_waits_and_can_be_stopped_while_it_does() -> None:
    keeper = Keeper()
    waits: list[int] = []

    def wait() -> None:
        waits.append(1)
        if len(waits) == 3:
            raise Halt

    make: Any = CountedBackend
    with keeper.using(EMBEDDED, make, lambda: None), pytest.raises(Halt), keeper.using(EMBEDDED, make, wait):
        pass
    assert len(waits) == 3 and not keeper.status()["busy"]
