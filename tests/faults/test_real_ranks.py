"""What breaks under real ranks: the frames that follow are those of a stream that nothing happened to."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from fakes.daemons import running, wait_until
from fakes.faults import fail_at
from fakes.real import CONFIG, STEPS, expected, off_by, picture, read, real_config, sha, speech, steps_until_left

from livetalk_core.daemon.client import Client
from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.daemon.messages import Event, Health, Progress
from livetalk_core.daemon.wire import to_error
from livetalk_core.errors import (
    LiveTalkError,
    NumericalError,
    OutOfMemoryError,
    ParallelError,
    WorkerDiedError,
    WorkerFailedError,
    WorkerHungError,
)

pytestmark = [pytest.mark.faults, pytest.mark.dist, pytest.mark.timeout(300)]

QUICK = Deadlines(start=90, load=90, first_chunk=60, step=5, beat=3)


def _faults(events: list[Event]) -> list[LiveTalkError]:
    return [to_error(event.error) for event in events if isinstance(event, Health) and event.error]


def _stream(client: Client, chunks: float, seed: int = 0) -> list[np.ndarray]:
    with client.open_stream(CONFIG, picture()) as stream:
        stream.push_audio(speech(chunks, seed), final=True)
        return read(stream)


def test_stream_survives_deaths_a_hang_and_a_lost_collective(tmp_path: Path, tiny_model_folder: Path) -> None:
    faults = [
        fail_at("kill", rank=1, chunk=1, step=1, generation=1),
        fail_at("hang", rank=1, chunk=2, step=2, generation=2),
        fail_at("skip_collective", rank=1, chunk=4, step=1, generation=3),
        fail_at("kill", rank=0, chunk=6, step=STEPS, generation=4),
    ]
    events: list[Event] = []
    config = real_config(tmp_path, tiny_model_folder, *faults, deadlines=QUICK, restarts=4)
    with running(config, events.append) as client:
        shown = _stream(client, 7.5)
        death, hang, skipped, second = _faults(events)
        assert isinstance(death, WorkerDiedError) and isinstance(second, WorkerDiedError)
        assert (death.details["rank"], death.details["chunk"], death.details["step"]) == (1, 1, 1)
        assert (second.details["rank"], second.details["chunk"], second.details["phase"]) == (0, 6, "decode")
        assert isinstance(hang, WorkerHungError) and (hang.details["rank"], hang.details["step"]) == (1, 2)
        # Whoever waits in the collective that nobody else enters: no endless wait, and it says where it stood.
        assert isinstance(skipped, WorkerHungError | WorkerFailedError | ParallelError)
        assert skipped.details["chunk"] == 4 and "log" in skipped.details
        assert [sha(frames) for frames in shown] == [sha(frames) for frames in _stream(client, 7.5)]
        identical, largest = off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 7.5)])
        assert identical >= 0.999 and largest <= 1
        assert client.stats().restarts == 4


def test_errors_end_their_stream_and_no_other(tmp_path: Path, tiny_model_folder: Path) -> None:
    faults = [
        *(fail_at("cuda_out_of_memory", rank, chunk=1, once=True) for rank in (0, 1)),
        fail_at("raise", rank=1, chunk=1, step=1),
        fail_at("other_noise", rank=1, chunk=2, generation=2),
        *(fail_at("nan", rank, chunk=2, generation=3) for rank in (0, 1)),
        fail_at("other_noise", rank=1, chunk=0, generation=3),
    ]
    with running(real_config(tmp_path, tiny_model_folder, *faults, deadlines=QUICK)) as client:
        state, memory = _fails(client, b"", OutOfMemoryError, chunk=1, restarts=0)
        assert memory.details["needed"] == 40 * 2**30 and "40.00 GiB needed" in str(memory)
        _, fault = _fails(client, state, WorkerFailedError, chunk=1, restarts=1)
        assert fault.details["rank"] == 1 and "_break" in str(fault.details["traceback"])
        # The state before the broken chunk is good for the ranks that replace the broken ones.
        _, differ = _fails(client, state, ParallelError, chunk=2, restarts=2)
        assert "state after chunk 2 of rank 1 differs" in str(differ)
        state, broken = _fails(client, state, NumericalError, chunk=2, restarts=2)
        assert "latents of chunk 2" in str(broken)
        with pytest.raises(ParallelError, match="initial noise of rank 1 differs"):
            client.open_stream(CONFIG, picture())
        shown = _stream(client, 2)
        assert off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 2)])[1] <= 1


def _fails(
    client: Client, state: bytes, error: type[LiveTalkError], *, chunk: int, restarts: int
) -> tuple[bytes, LiveTalkError]:
    """A stream of three chunks that fails in one of them: the state before that, and the error."""
    with client.open_stream(CONFIG, picture(), state=state, want_state=True) as stream:
        stream.push_audio(speech(3)[stream.samples :])
        for number in range(stream.chunk, chunk):
            made = stream.next_chunk(60)
            assert made is not None and made.index == number
            state = made.state
        with pytest.raises(error) as caught:
            stream.next_chunk(60)
    assert caught.value.details["chunk"] == chunk
    client.load_model()
    assert client.stats().restarts == restarts
    return state, caught.value


def test_cancel_at_random_steps_leaves_all_ranks_in_step(tmp_path: Path, tiny_model_folder: Path) -> None:
    generator = np.random.default_rng(11)
    begun: list[tuple[int, int]] = []

    def note(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "step":
            begun.append((event.chunk, event.step))

    with running(real_config(tmp_path, tiny_model_folder), note) as client:
        wanted = _stream(client, 2, seed=5)
        for trial in range(8):
            with client.open_stream(CONFIG, picture()) as stream:
                begun.clear()
                stream.push_audio(speech(3, seed=trial))
                place = (0, int(generator.integers(STEPS)))
                wait_until(lambda place=place: bool(begun) and begun[-1] >= place, 30, f"{place} has begun")
                began = time.monotonic()
                step = stream.cancel()
                assert step == -1 or step <= STEPS
                assert time.monotonic() - began < 5
                assert {rank.phase for rank in client.stats().ranks} == {"idle"}
                # The same stream goes on with other sound, as one that heard nothing else.
                stream.push_audio(speech(2, seed=5), final=True)
                assert [sha(frames) for frames in read(stream)] == [sha(frames) for frames in wanted]
        assert client.stats().restarts == 0
        logs = [log.read_text() for log in tmp_path.rglob("*-rank*.log")]
    assert len(logs) == 2
    for log in logs:
        assert steps_until_left(log) and max(steps_until_left(log)) <= 1, "the next step does not begin"
