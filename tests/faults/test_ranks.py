"""Ranks that die, hang, fail or never come up: one typed error, and the stream goes on where it can."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes.daemons import CONFIG, daemon_config, expected_frames, running, sound, wait_until
from fakes.faults import at_start, fail_at

from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.daemon.messages import Event, Health
from livetalk_core.errors import (
    CheckpointError,
    DaemonUnavailableError,
    DeadlineError,
    ImageError,
    LiveTalkError,
    NumericalError,
    OutOfMemoryError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerHungError,
)

pytestmark = pytest.mark.faults


def _faults(events: list[Event]) -> list[LiveTalkError]:
    from livetalk_core.daemon.wire import to_error

    return [to_error(event.error) for event in events if isinstance(event, Health) and event.error]


def _whole_stream(client, samples) -> list[np.ndarray]:
    """All frames of a stream, each chunk checked against what the engine must show."""
    shown = []
    with client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(samples, final=True)
        for number, chunk in enumerate(stream.chunks(timeout=40)):
            assert chunk.index == number
            wanted = expected_frames(samples, number, stream.number, len(chunk.frames))
            assert np.array_equal(chunk.frames, wanted)
            assert chunk.first_frame == 28 * number
            shown.append(np.array(chunk.frames))
    return shown


@pytest.mark.parametrize("rank", [0, 1])
def test_killed_rank_is_replaced_and_the_stream_goes_on(tmp_path: Path, rank: int) -> None:
    events: list[Event] = []
    samples = sound(4.5)
    with running(daemon_config(tmp_path, fail_at("kill", rank, chunk=2, step=1)), events.append) as client:
        shown = _whole_stream(client, samples)
        assert [len(frames) for frames in shown] == [28, 28, 28, 28, 14]
        stats = client.stats()
    (fault,) = _faults(events)
    assert isinstance(fault, WorkerDiedError)
    details = fault.details
    assert (details["rank"], details["signal"], details["chunk"]) == (rank, signal.SIGKILL, 2)
    assert details["phase"] == "step" and str(details["log"]).endswith(f"rank{rank}.log")
    assert "out of memory" in fault.hint
    assert stats.restarts == 1 and stats.last_rung == "sigkill" and stats.chunks == 5


def test_rank_that_dies_after_its_frames_are_written_delivers_them_once(tmp_path: Path) -> None:
    # Rank 0 has filled the slot of chunk 1 when rank 1 dies: the chunk is not committed and is made again.
    with running(daemon_config(tmp_path, fail_at("kill", 1, chunk=1, step=4))) as client:
        assert len(_whole_stream(client, sound(3))) == 3


def test_random_kills_lose_nothing(tmp_path: Path) -> None:
    generator = np.random.default_rng(5)
    places = [(int(generator.integers(2)), chunk, int(generator.integers(5))) for chunk in (0, 2, 4)]
    faults = [fail_at("kill", rank, chunk, step, generation=n + 1) for n, (rank, chunk, step) in enumerate(places)]
    with running(daemon_config(tmp_path, *faults)) as client:
        assert len(_whole_stream(client, sound(6))) == 6
        assert client.stats().restarts == 3


def test_stopped_rank_hangs(tmp_path: Path) -> None:
    events: list[Event] = []
    config = daemon_config(tmp_path, fail_at("hang", 1, chunk=1, step=2), deadlines=Deadlines(beat=2))
    with running(config, events.append) as client:
        assert len(_whole_stream(client, sound(3))) == 3
    (fault,) = _faults(events)
    assert isinstance(fault, WorkerHungError)
    assert (fault.details["rank"], fault.details["chunk"], fault.details["step"]) == (1, 1, 2)
    log = next((tmp_path / "logs").glob("*rank1.log")).read_text()
    assert "most recent call first" in log, "the rank must say where it stood"


def test_rank_without_progress_hangs_although_it_lives(tmp_path: Path) -> None:
    events: list[Event] = []
    deadlines = Deadlines(first_chunk=2, step=2)
    with running(daemon_config(tmp_path, fail_at("slow", 0, 0, 1), deadlines=deadlines), events.append) as client:
        assert len(_whole_stream(client, sound(2))) == 2
    (fault,) = _faults(events)
    assert isinstance(fault, WorkerHungError) and fault.details["setting"] == "deadlines.first_chunk"


def test_exception_on_a_rank_without_output_ends_the_stream_with_its_traceback(tmp_path: Path) -> None:
    config = daemon_config(tmp_path, fail_at("raise", 1, chunk=1, step=1), options={"step_seconds": "0.02"})
    with running(config) as client, client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(3))
        assert stream.next_chunk(30).index == 0
        began = time.monotonic()
        with pytest.raises(WorkerFailedError, match="scripted fault") as caught:
            stream.next_chunk(30)
        assert time.monotonic() - began < 5
        assert caught.value.details["rank"] == 1 and caught.value.details["chunk"] == 1
        assert "Rank 1 failed in chunk 1: RuntimeError: " in str(caught.value)
        assert "_break" in next((tmp_path / "logs").glob("*rank1.log")).read_text()
        assert "_break" in str(caught.value.details["traceback"])
        home = os.path.expanduser("~")
        assert f"{home}/model" not in caught.value.details["traceback"] and f"{home}/model" not in str(caught.value)
        # The group is replaced, and the next stream is as good as any.
        assert len(_whole_stream(client, sound(1))) == 1


@pytest.mark.parametrize(
    ("kind", "error"), [("numerical", NumericalError), ("out_of_memory", OutOfMemoryError)], ids=["nan", "oom"]
)
def test_error_on_all_ranks_ends_the_stream_and_keeps_the_group(tmp_path: Path, kind, error) -> None:
    faults = [fail_at(kind, rank, chunk=1, step=0) for rank in (0, 1)]
    with running(daemon_config(tmp_path, *faults)) as client:
        with client.open_stream(CONFIG, b"picture") as stream:
            stream.push_audio(sound(2), final=True)
            assert stream.next_chunk(30).index == 0, "chunks made before are still delivered"
            with pytest.raises(error) as caught:
                stream.next_chunk(30)
            assert caught.value.details["chunk"] == 1
            with pytest.raises(error):
                stream.next_chunk(30)
        stats = client.stats()
        assert (stats.state, stats.restarts) == ("ready", 0)
        assert len(_whole_stream(client, sound(1))) == 1


def test_out_of_memory_on_one_rank_does_not_leave_the_other_waiting(tmp_path: Path) -> None:
    faults = (fail_at("out_of_memory", 1, chunk=0, step=3), fail_at("slow", 0, chunk=0, step=0))
    limits, options = Deadlines(failure_grace=0.5), {"step_seconds": "0.5"}
    config = daemon_config(tmp_path, *faults, deadlines=limits, options=options)
    with running(config) as client, client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(1))
        with pytest.raises(OutOfMemoryError, match="24 GB free"):
            stream.next_chunk(30)
        wait_until(lambda: client.stats().state == "ready", 20, "the group is replaced")
        assert client.stats().restarts == 1


@pytest.mark.parametrize("kind", ["raise", "cuda_error"])
def test_group_that_met_an_unknown_error_is_never_used_again(tmp_path: Path, kind) -> None:
    faults = [fail_at(kind, rank, chunk=0, step=0) for rank in (0, 1)]
    with running(daemon_config(tmp_path, *faults)) as client:
        client.load_model()
        before = {rank.pid for rank in client.stats().ranks}
        with client.open_stream(CONFIG, b"picture") as stream:
            stream.push_audio(sound(1))
            with pytest.raises(WorkerFailedError):
                stream.next_chunk(30)
        client.load_model()
        assert before.isdisjoint(rank.pid for rank in client.stats().ranks)


def test_shutdown_climbs_the_ladder_to_sigkill(tmp_path: Path) -> None:
    config = daemon_config(tmp_path, at_start("ignore_sigterm", 0), deadlines=Deadlines(stop=0.5, terminate=0.5))
    with running(config) as client:
        client.load_model()
        client.unload()
        wait_until(lambda: client.stats().state == "stopped", 10, "ranks gone")
        assert client.stats().last_rung == "sigkill"


def test_friendly_shutdown_stays_on_the_first_rung(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, deadlines=Deadlines(stop=10))) as client:
        client.load_model()
        client.unload()
        wait_until(lambda: client.stats().state == "stopped", 10, "ranks gone")
        assert client.stats().last_rung == "message"
        client.load_model()


def test_crash_at_import_fails_the_start_at_once(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, at_start("exit_at_import", 1))) as client:
        began = time.monotonic()
        with pytest.raises(WorkerDiedError, match="ImportError: scripted fault") as caught:
            client.load_model()
        # Python itself takes a while on a busy machine; the load deadline is 30 s here.
        assert time.monotonic() - began < 10
        assert caught.value.details["rank"] == 1


def test_rank_that_is_never_ready_meets_its_deadline(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, at_start("never_ready", 1), deadlines=Deadlines(start=4))) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineError, match=r"deadlines\.start") as caught:
            client.load_model()
        assert 0.9 * 4 <= time.monotonic() - began <= 1.5 * 4
        assert caught.value.details["rank"] == 1


def test_model_that_cannot_be_loaded_is_told_and_not_tried_again(tmp_path: Path) -> None:
    faults = [at_start("bad_load", rank) for rank in (0, 1)]
    with running(daemon_config(tmp_path, *faults)) as client:
        with pytest.raises(CheckpointError, match="damaged") as caught:
            client.load_model()
        assert caught.value.details["file"] == "weights.safetensors"
        wait_until(lambda: client.stats().state == "stopped", 10, "ranks gone")
        assert client.stats().restarts == 0


def test_too_little_memory_to_load_ends_the_ranks_in_order(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, at_start("no_memory_to_load", 1))) as client:
        with pytest.raises(OutOfMemoryError, match=r"24\.00 GiB free") as caught:
            client.load_model()
        assert caught.value.details["rank"] == 1 and caught.value.details["free"] == 24
        wait_until(lambda: client.stats().state == "stopped", 10, "ranks gone")


def test_crash_loop_ends_in_a_terminal_state_with_its_reason(tmp_path: Path) -> None:
    faults = [fail_at("kill", 1, chunk=1, step=0, generation=0)]
    with running(daemon_config(tmp_path, *faults)) as client, client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(3))
        assert stream.next_chunk(30).index == 0
        with pytest.raises(WorkerDiedError):
            stream.next_chunk(60)
        wait_until(lambda: client.stats().state == "dead", 10, "terminal state")
        assert client.stats().restarts == 3
        for call in (client.load_model, lambda: client.open_stream(CONFIG, b"picture")):
            began = time.monotonic()
            with pytest.raises(DaemonUnavailableError, match="Rank 1 was ended by signal 9"):
                call()
            assert time.monotonic() - began < 1


def test_bad_picture_is_the_error_of_open_stream(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client:
        with pytest.raises(ImageError, match="cannot be read"):
            client.open_stream(CONFIG, b"not a picture")
        assert len(_whole_stream(client, sound(1))) == 1


def test_no_rank_survives_the_supervisor(tmp_path: Path) -> None:
    config = daemon_config(tmp_path, options={"step_seconds": "0.05"})
    client = None
    from livetalk_core.daemon.client import Client

    client = Client.start_or_join(config)
    stream = client.open_stream(CONFIG, b"picture")
    stream.push_audio(sound(3))
    ranks = [rank.pid for rank in client.stats().ranks]
    os.kill(ranks[1], signal.SIGSTOP)  # a stopped process cannot look at its pipe
    os.kill(client.welcome.pid, signal.SIGKILL)
    with pytest.raises(DaemonUnavailableError):
        for _ in stream.chunks(timeout=10):
            pass
    wait_until(lambda: not any(_lives(pid) for pid in ranks), 5, "ranks gone")
    with running(config) as second:  # removes the folder of the killed one
        assert second.welcome.pid != client.welcome.pid
        assert len(list(tmp_path.glob("????????"))) == 1


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
