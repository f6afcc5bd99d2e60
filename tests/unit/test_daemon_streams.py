"""A stream in the supervisor: its sound, its chunks, its slots."""

from __future__ import annotations

import numpy as np
import pytest

from livetalk_core.config import ChunkGeometry, StreamConfig
from livetalk_core.daemon.streams import MAX_BACKLOG, SoundBacklog, StreamRecord
from livetalk_core.daemon.worker_messages import ChunkDone
from livetalk_core.errors import AudioError

pytestmark = pytest.mark.unit
GEOMETRY = ChunkGeometry()
SLICE = GEOMETRY.slice_samples


def _record(slots: int = 3) -> StreamRecord:
    config = StreamConfig(width=32, height=16)
    return StreamRecord(
        number=1, client=1, config=config, config_json=b"", picture=b"", clip=0, ring=-1, slots=slots, slot_bytes=1
    )


def _sound(samples: int) -> bytes:
    return np.arange(samples, dtype=np.float32).tobytes()


def _make(record: StreamRecord, final: bool = False) -> None:
    sound = record.next_sound()
    assert sound is not None
    run = record.begin(sound)
    record.commit(ChunkDone(1, run.epoch, run.chunk, final, f"after {run.chunk}".encode(), 0, 28, 16, 32))


def test_every_sample_is_used_once_and_a_broken_chunk_gets_the_same_sound_again() -> None:
    record = _record(8)
    record.sound.push(_sound(3 * SLICE), False)
    _make(record)
    first = record.begin(record.next_sound() or b"")
    record.abandon()
    again = record.begin(record.next_sound() or b"")
    assert first == again and np.frombuffer(again.samples, np.float32)[0] == SLICE
    record.abandon()
    _make(record)
    _make(record)
    assert record.next_sound() is None and not record.finished()
    record.sound.push(b"", True)
    assert record.finished() and record.position.samples == 3 * SLICE


@pytest.mark.parametrize(("tail", "chunks"), [(0, 1), (100, 1), (320, 2), (SLICE - 1, 2)])
def test_tail_that_adds_no_frame_makes_no_chunk(tail: int, chunks: int) -> None:
    record = _record(8)
    record.sound.push(_sound(SLICE + tail), True)
    made = 0
    while record.next_sound() is not None:
        _make(record)
        made += 1
    assert made == chunks and record.finished()


def test_single_sample_makes_a_chunk() -> None:
    record = _record()
    record.sound.push(_sound(1), True)
    _make(record, final=True)
    assert record.finished()


def test_slots_are_given_out_once() -> None:
    record = _record(3)
    record.sound.push(_sound(9 * SLICE), False)
    for _ in range(3):
        _make(record)
    assert not record.free
    record.release([0, 1, 2, 99, -1])
    assert not record.free, "slots that wait to be delivered are not the client's to give back"
    slot = record.deliver(5).slot
    record.release([slot])
    assert record.free == {slot}


def test_cancel_goes_back_to_the_last_delivered_chunk() -> None:
    record = _record(4)
    record.sound.push(_sound(4 * SLICE), False)
    for _ in range(3):
        _make(record)
    assert record.deliver(1).chunk == 0
    record.cancel()
    assert record.position.state == b"after 0" and record.position.chunk == 1 and record.stale
    assert record.deliver(2) is None and record.sound.samples == 0 and record.epoch == 1
    assert len(record.free) == 3


def test_backlog_is_bounded_and_whole() -> None:
    backlog = SoundBacklog()
    with pytest.raises(AudioError, match="not whole"):
        backlog.push(b"123", False)
    assert backlog.push(bytes(MAX_BACKLOG - 4), False) == MAX_BACKLOG // 4 - 1
    assert backlog.push(bytes(400), True) == 1 and not backlog.final, "the end comes with its last sample"
