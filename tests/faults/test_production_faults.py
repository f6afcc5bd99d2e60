"""A video made through the daemon: fake ranks, the real protocol, the real film."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.daemons import (
    GEOMETRY,
    SLICE,
    assert_all_gone,
    daemon_config,
    expected_frames,
    processes_of,
    program,
    sound,
)
from fakes.faults import Fault, at_start, fail_at

from livetalk_core.chunking import total_frames
from livetalk_core.daemon.client import Client
from livetalk_core.errors import AudioError, CheckpointError, OutputError, WorkerDiedError, WorkerFailedError
from livetalk_core.media import frame_digest, open_sound, probe_video
from livetalk_core.production import Observer, Recording, Report, Stopped, VideoRequest, make_backend, produce
from livetalk_core.production import daemon_config as daemon_config_of

pytestmark = pytest.mark.faults
SIZE = (32, 16)


class Notes(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.steps: list[tuple[int, int, int]] = []
        self.frames: list[np.ndarray] = []
        self.samples: list[np.ndarray] = []

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def step(self, chunk: int, step: int, steps: int) -> None:
        self.steps.append((chunk, step, steps))

    def chunk(self, record: Any, frames: np.ndarray, samples: np.ndarray) -> None:
        self.frames.append(frames.copy())
        self.samples.append(samples)


def request(tmp_path: Path, samples: Any, *faults: Fault, out: str = "out.mkv", **fields: Any) -> VideoRequest:
    options = {name: fields.pop(name) for name in ("options", "deadlines", "grace", "restarts") if name in fields}
    daemon = daemon_config(_root(tmp_path), *faults, **options)
    recording = Recording(samples, 16_000) if isinstance(samples, np.ndarray) else samples
    return VideoRequest(
        recording, tmp_path / out, size=SIZE, seed=7, world_size=2, device="cpu", dtype="fp32", daemon=daemon, **fields
    )


def _root(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    root.mkdir(mode=0o700, exist_ok=True)
    return root


def expected(samples: Any, chunks: int, stream: int = 1) -> list[str]:
    frames = [min(28, (len(samples[k * SLICE :]) + 320) // 640) for k in range(chunks)]
    return [frame_digest(expected_frames(samples, k, stream, frames[k])) for k in range(chunks)]


def digests(report: Report) -> list[str]:
    return [chunk.sha256 for chunk in report.chunks]


def test_video_has_every_frame_and_its_sound(tmp_path: Path) -> None:
    samples, notes = sound(3.5).clip(-1, 1), Notes()
    report = produce(request(tmp_path, samples), notes)
    assert digests(report) == expected(samples, 4)
    assert report.world_size == 2 and len(set(report.worker_pids)) == 2
    assert report.status == "complete" and report.audio_seconds == pytest.approx(len(samples) / 16_000)
    assert probe_video(tmp_path / "out.mkv").frames == 98
    with open_sound(tmp_path / "out.mkv") as track:
        assert np.array_equal(track.read(10**6), samples)
    assert notes.phases == ["checking", "starting", "loading", "preparing", "generating", "finishing"]
    assert [step for chunk, step, _ in notes.steps if chunk == 1] == [1, 2, 3, 4]
    assert [len(part) for part in notes.samples] == [len(part) * 640 for part in notes.frames]
    assert_all_gone(tmp_path / "run")


def test_chunk_comes_as_soon_as_its_sound_is_there(tmp_path: Path) -> None:
    """The pipe gives the second chunk's sound only after the first chunk has been written."""
    samples = (sound(2).clip(-1, 1) * 32767).astype("<i2")
    notes, written = Notes(), threading.Event()

    class Pipe(io.RawIOBase):
        left = samples.tobytes()

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if len(self.left) <= 2 * SLICE:
                assert written.wait(60)
            part = self.left[: min(len(buffer), 4000)]
            type(self).left = self.left[len(part) :]
            buffer[: len(part)] = part
            return len(part)

    def chunk(record: Any, frames: np.ndarray, heard: np.ndarray) -> None:
        written.set()

    notes.chunk = chunk  # type: ignore[method-assign]
    report = produce(request(tmp_path, "-", stdin=Pipe()), notes)
    assert len(report.chunks) == 2 and written.is_set()


def test_death_of_a_rank_is_a_note_and_the_film_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples, notes = sound(4), Notes()
    report = produce(request(tmp_path, samples.clip(-1, 1), fail_at("kill", 1, chunk=2, step=1)), notes)
    assert digests(report) == expected(samples.clip(-1, 1), 4)
    assert notes.phases[-4:] == ["generating", "recovering", "generating", "finishing"]
    assert "Rank 1 was ended by signal 9" in caplog.text and "the video goes on" in caplog.text
    assert len(set(report.worker_pids)) == 2


def test_prompt_that_nobody_reads_is_a_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with closing(make_backend(wanted := request(tmp_path, sound(0.2).clip(-1, 1)))) as backend:
        produce(wanted, backend=backend)
        assert "prompt_ignored" not in caplog.text
        produce(replace(wanted, prompt="a person on the moon"), backend=backend)
        assert "prompt_ignored" in caplog.text


def test_whole_mode_hands_out_the_sound_chunk_by_chunk(tmp_path: Path) -> None:
    notes = Notes()
    report = produce(request(tmp_path, sound(2).clip(-1, 1), mode="whole"), notes)
    assert report.frames == 56 and report.status == "complete"
    assert [len(part) for part in notes.samples] == [len(part) * 640 for part in notes.frames]


def test_stop_while_ranks_start_gives_control_back(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Ranks that never come would be waited for until their deadline."""
    asked: list[float] = []

    def stop() -> bool:
        if any("engine_worker" in " ".join(process.cmdline()) for process in processes_of(tmp_path / "run")):
            asked.append(time.monotonic())
        return bool(asked)

    with pytest.raises(Stopped):
        produce(replace(request(tmp_path, sound(1), at_start("never_ready")), stop=stop))
    record_property("seconds", time.monotonic() - asked[0])
    assert_all_gone(tmp_path / "run")


def test_stop_within_a_chunk_keeps_what_was_made_and_its_state(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    asked: list[float] = []

    class Presser(Notes):
        def step(self, chunk: int, step: int, steps: int) -> None:
            if (chunk, step) == (2, 2):
                asked.append(time.monotonic())

    wanted = request(tmp_path, sound(20).clip(-1, 1), options={"step_seconds": "0.2"}, state=tmp_path / "s.state")
    report = produce(replace(wanted, stop=lambda: bool(asked)), Presser())
    record_property("seconds", time.monotonic() - asked[0])
    assert report.status == "interrupted" and report.signal is None
    assert len(report.chunks) == 2 and probe_video(tmp_path / "out.mkv").frames == 56
    assert b'"chunk": 2' in (tmp_path / "s.state").read_bytes()
    assert_all_gone(tmp_path / "run")


def test_video_is_as_long_as_its_sound_whatever_its_length(tmp_path: Path) -> None:
    """The same rule decides about the tail here as in one process."""
    wanted = request(tmp_path, sound(1))
    with closing(make_backend(wanted)) as backend:
        for samples in (1, 319, SLICE - 320, SLICE, SLICE + 319, SLICE + 320, 2 * SLICE - 1, 2 * SLICE):
            recording = Recording(sound(2)[:samples].clip(-1, 1), 16_000)
            report = produce(replace(wanted, audio=recording), backend=backend)
            assert report.frames == total_frames(samples, GEOMETRY) and report.audio_seconds <= samples / 16_000
            assert probe_video(tmp_path / "out.mkv").frames == report.frames


def test_bad_sound_ends_it_after_the_chunks_before(tmp_path: Path) -> None:
    samples = sound(3).clip(-1, 1)
    samples[2 * SLICE + 5] = np.nan
    made = Notes()
    with pytest.raises(AudioError, match="not a number"):
        produce(request(tmp_path, samples), made)
    assert len(made.frames) in (1, 2) and not (tmp_path / "out.mkv").exists()
    assert_all_gone(tmp_path / "run")


@pytest.mark.parametrize("fault", ["state cannot be written", "a program's own error"])
def test_whatever_ends_it_what_a_state_continues_stays(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "states"
    folder.mkdir()

    class Breaker(Notes):
        def chunk(self, record: Any, frames: np.ndarray, samples: np.ndarray) -> None:
            super().chunk(record, frames, samples)
            if len(self.frames) == 2 and fault.startswith("state"):
                shutil.rmtree(folder)
            elif len(self.frames) == 2:
                raise RuntimeError(fault)

    wanted = request(tmp_path, sound(5).clip(-1, 1), state=folder / "s.state", report=tmp_path / "r.json")
    with pytest.raises(OutputError if fault.startswith("state") else RuntimeError) as caught:
        produce(wanted, Breaker())
    assert probe_video(tmp_path / "out.mkv").frames == (84 if fault.startswith("state") else 56)
    assert '"status": "failed"' in (tmp_path / "r.json").read_text()
    if fault.startswith("state"):
        assert "The first 2.24 s are in" in caught.value.hint  # type: ignore[union-attr]
    else:
        assert b'"chunk": 2' in (folder / "s.state").read_bytes()
    assert_all_gone(tmp_path / "run")


def test_errors_of_the_ranks_arrive_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        produce(request(tmp_path, sound(1).clip(-1, 1), at_start("bad_load")))
    with pytest.raises(WorkerFailedError) as caught:
        produce(request(tmp_path, sound(3).clip(-1, 1), fail_at("raise", 1, chunk=1)))
    assert caught.value.details["rank"] == 1 and caught.value.details["chunk"] == 1
    assert not (tmp_path / "out.mkv").exists()
    assert_all_gone(tmp_path / "run")


def test_kept_backend_serves_one_video_after_the_other_and_survives_its_daemon(tmp_path: Path) -> None:
    samples = sound(1.5).clip(-1, 1)
    wanted = request(tmp_path, samples)
    backend = make_backend(wanted)
    try:
        first, second = (produce(wanted, backend=backend) for _ in range(2))
        assert first.worker_pids == second.worker_pids
        assert digests(second) == expected(samples, 2, stream=2)
        Client.start_or_join(daemon_config_of(wanted)).shutdown()
        third = produce(wanted, backend=backend)
        assert digests(third) == digests(first) and set(third.worker_pids).isdisjoint(first.worker_pids)
    finally:
        backend.close()
    assert_all_gone(tmp_path / "run")


def test_kept_backend_leaves_a_daemon_that_has_given_up(tmp_path: Path) -> None:
    """Its supervisor lives on for a while, and would be joined again and again."""
    samples = sound(2.5).clip(-1, 1)
    too_much = request(tmp_path, samples, fail_at("kill", chunk=1), restarts=0, grace=30)
    backend = make_backend(too_much)
    try:
        with pytest.raises(WorkerDiedError):
            produce(too_much, backend=backend)
        less = replace(too_much, audio=Recording(samples[: SLICE // 2], 16_000), output=tmp_path / "less.mkv")
        assert len(produce(less, backend=backend).chunks) == 1
    finally:
        backend.close()


def test_ranks_that_are_loaded_make_a_video_for_a_program_without_the_model_libraries(tmp_path: Path) -> None:
    root = _root(tmp_path)
    code = f"""
import sys
from pathlib import Path
import numpy as np
from fakes.daemons import daemon_config
from livetalk_core.production import Recording, VideoRequest, produce
sound = Recording(np.zeros(20_000, np.float32), 16_000)
for mode in ("stream", "whole"):
    report = produce(VideoRequest(
        sound, Path({str(tmp_path / "a.mp4")!r}), size=(32, 16), world_size=2, device="cpu", mode=mode,
        daemon=daemon_config(Path({str(root)!r}))))
    assert report.frames == 31
heavy = {{"torch", "diffusers", "transformers", "scipy"}} & set(sys.modules)
assert not heavy, heavy
"""
    process = program(code)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 0, output
    assert_all_gone(root)
