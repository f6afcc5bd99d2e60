"""What a stream needs next, and what becomes of it when its clip cannot be encoded; without processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from livetalk_core.config import AudioConfig, StreamConfig
from livetalk_core.daemon.daemon_config import DaemonConfig
from livetalk_core.daemon.frame_ring import create_ring
from livetalk_core.daemon.messages import AudioEncoded, Failed
from livetalk_core.daemon.scheduler import Scheduler
from livetalk_core.daemon.streams import StreamRecord
from livetalk_core.daemon.tasks import Clip, Task, next_task
from livetalk_core.daemon.worker_messages import (
    ChunkDone,
    Close,
    Encode,
    Encoded,
    Open,
    OpenDecode,
    Opened,
    Outcome,
    Restore,
    Run,
)
from livetalk_core.errors import OutOfMemoryError

pytestmark = pytest.mark.unit

CONFIG = StreamConfig(width=32, height=16)
SLICE_BYTES = 4 * CONFIG.geometry.slice_samples


@pytest.fixture
def ring() -> Iterator[int]:
    yield create_ring(2, 4096)


def _stream(ring: int, **fields: Any) -> StreamRecord:
    given = {"config": CONFIG, "config_json": b"{}", "picture": b"p", "clip": 0, "slots": 2, "slot_bytes": 4096}
    return StreamRecord(number=7, client=1, ring=ring, **{**given, **fields})


def _kind(task: Task | None) -> type | None:
    return None if task is None else type(task.command)


def test_stream_is_opened_fed_restored_and_opened_again_by_new_ranks(ring: int) -> None:
    record = _stream(ring)
    opening = next_task(record, None, 1, 2)
    assert _kind(opening) is Open and opening is not None and opening.descriptors == {0: [ring]}
    record.resident, record.opened = 1, True
    assert next_task(record, None, 1, 2) is None, "no sound yet"
    record.sound.push(bytes(3 * SLICE_BYTES), False)
    assert _kind(next_task(record, None, 1, 2)) is Run
    assert next_task(record, None, 1, 2) is None, "one chunk at a time"
    record.commit(ChunkDone(7, 0, 0, state=b"after 0"))
    assert _kind(next_task(record, None, 1, 2)) is Run
    record.abandon()
    record.stale = True
    restoring = next_task(record, None, 1, 2)
    assert restoring is not None and restoring.command == Restore(7, b"after 0")
    again = next_task(record, None, 2, 2)
    assert again is not None and isinstance(again.command, Open) and again.command.state == b"after 0"
    assert not record.stale, "new ranks begin where the state says"
    record.close()


def test_stream_without_a_free_slot_waits(ring: int) -> None:
    record = _stream(ring, opened=True, resident=1)
    record.sound.push(bytes(SLICE_BYTES), False)
    record.free.clear()
    assert next_task(record, None, 1, 1) is None
    record.release([1])
    assert _kind(next_task(record, None, 1, 1)) is Run
    record.close()


def test_latents_go_to_every_rank_and_the_ring_to_the_first(ring: int) -> None:
    record = _stream(ring, config=None, latents=create_ring(1, 64), shape=(1, 16, 1, 2, 2))
    opening = next_task(record, None, 1, 2)
    assert _kind(opening) is OpenDecode and opening is not None
    assert opening.descriptors == {0: [record.latents, ring], 1: [record.latents]}
    record.close()


class _Outbox:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, client: int, message: Any, descriptors: Sequence[int] = ()) -> None:
        self.sent.append(message)

    def broadcast(self, message: Any) -> None:
        self.sent.append(message)


class _Group(SimpleNamespace):
    """An engine that keeps what it is given."""

    idle, state, generation = True, "ready", 1

    def run(self, task: Task) -> None:
        self.task = task

    def tell(self, command: Any) -> None:
        self.told.append(command)


def test_clip_that_new_ranks_cannot_encode_fails_the_streams_that_speak_it(ring: int) -> None:
    outbox, group = _Outbox(), _Group(task=None, told=[])
    scheduler = Scheduler(DaemonConfig(), outbox)
    scheduler.group = group  # type: ignore[assignment]

    def carried_out(kind: type, outcome: Outcome) -> None:
        scheduler.tick(0.0)
        assert _kind(group.task) is kind
        scheduler.task_done(group.task, {0: outcome})

    scheduler.clips[3] = Clip(3, 1, 11, b"{}", bytes(8))
    carried_out(Encode, Encoded(3, 40))
    assert outbox.sent == [AudioEncoded(11, 3, 40)]
    whole = StreamConfig(width=32, height=16, audio=AudioConfig(mode="whole"))
    record = _stream(ring, config=whole, clip=3, open_request=12)
    scheduler.add(record)
    carried_out(Open, Opened(7))
    group.generation = 2
    scheduler.tick(0.0)
    assert _kind(group.task) is Encode, "every generation of ranks has to encode it"
    scheduler.task_failed(group.task, OutOfMemoryError("cuda:0 ran out of memory."), blame=True)
    failed = outbox.sent[-1]
    assert isinstance(failed, Failed) and failed.error.code == OutOfMemoryError.code and failed.stream == 7
    assert group.told == [Close(7)]
    group.task = None
    scheduler.tick(0.0)
    assert group.task is None, "it is not opened without its clip"
    record.close()
