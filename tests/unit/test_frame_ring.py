"""Frames in shared memory: what is written is read, and nothing else."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest

from livetalk_core.daemon.frame_ring import PAGE, FrameRing, create_ring, read_only, stride
from livetalk_core.errors import DeviceError, ProtocolError

pytestmark = pytest.mark.unit

SHAPE = (2, 4, 6, 3)
SIZE = 2 * 4 * 6 * 3


@pytest.fixture
def ring():
    descriptor = create_ring(3, SIZE)
    reader = read_only(descriptor)
    yield descriptor, FrameRing(descriptor, 3, SIZE, writable=True), FrameRing(reader, 3, SIZE, writable=False)
    os.close(descriptor)
    os.close(reader)


def _frames(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def test_what_is_written_is_read(ring) -> None:
    _, writer, reader = ring
    for slot in (2, 0, 2):
        writer.write(slot, _frames(slot), stream=7, epoch=1, chunk=slot + 5, first_frame=28 * slot)
        header, frames = reader.read(slot, stream=7, epoch=1, chunk=slot + 5)
        assert np.array_equal(frames, _frames(slot)) and header.first_frame == 28 * slot
    assert reader.sequence(2) == 4, "two complete writes"


def test_slot_that_is_being_written_is_not_read(ring) -> None:
    _, writer, reader = ring
    writer.write(0, _frames(0), stream=1, epoch=0, chunk=0, first_frame=0)
    writer.begin(0, SHAPE)
    with pytest.raises(ProtocolError):
        reader.read(0, stream=1, epoch=0, chunk=0)
    # A writer that died in the middle leaves an odd number; the next one goes on from there.
    writer.write(0, _frames(3), stream=1, epoch=0, chunk=1, first_frame=0)
    assert np.array_equal(reader.read(0, stream=1, epoch=0, chunk=1)[1], _frames(3))


@pytest.mark.parametrize("other", [{"stream": 2}, {"epoch": 1}, {"chunk": 9}])
def test_frames_of_another_stream_epoch_or_chunk_are_refused(ring, other: dict[str, int]) -> None:
    _, writer, reader = ring
    told = {"stream": 1, "epoch": 0, "chunk": 3}
    writer.write(1, _frames(1), **told, first_frame=0)
    with pytest.raises(ProtocolError, match="does not hold"):
        reader.read(1, **{**told, **other})


def test_reader_cannot_write(ring) -> None:
    _, writer, reader = ring
    writer.write(0, _frames(0), stream=1, epoch=0, chunk=0, first_frame=0)
    _, frames = reader.read(0, stream=1, epoch=0, chunk=0)
    with pytest.raises(ValueError, match="read-only"):
        frames[0, 0, 0, 0] = 1
    with pytest.raises(TypeError):
        reader.begin(0, SHAPE)


def test_memory_cannot_be_resized(ring) -> None:
    descriptor, _, _ = ring
    for size in (0, PAGE, 10**6):
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, size)


@pytest.mark.parametrize("shape", [(3, 4, 6, 3), (2, 4, 6, 4), (0, 4, 6, 3), (2**31, 2**31, 2**31, 3)])
def test_frames_that_do_not_fit_are_refused(ring, shape: tuple[int, ...]) -> None:
    descriptor, writer, reader = ring
    with pytest.raises(ProtocolError, match="do not fit"):
        writer.begin(0, shape)
    writer.write(0, _frames(0), stream=1, epoch=0, chunk=0, first_frame=0)
    forged = [min(axis, 2**32 - 1) for axis in shape]
    os.pwrite(descriptor, struct.pack("<4I", *forged), struct.calcsize("<QQIIBB2x"))
    with pytest.raises(ProtocolError, match="do not fit"):
        reader.read(0, stream=1, epoch=0, chunk=0)


@pytest.mark.parametrize("slot", [-1, 3, 2**40])
def test_slot_outside_the_ring(ring, slot: int) -> None:
    with pytest.raises(ProtocolError, match="no slot"):
        ring[2].read(slot, stream=1, epoch=0, chunk=0)


def test_memory_that_is_not_what_was_announced(tmp_path) -> None:
    plain = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    for descriptor in (plain, unsealed):
        os.ftruncate(descriptor, 3 * stride(SIZE))
        with pytest.raises(ProtocolError):
            FrameRing(descriptor, 3, SIZE, writable=False)
        os.close(descriptor)
    good = create_ring(3, SIZE)
    with pytest.raises(ProtocolError, match="announced"):
        FrameRing(good, 4, SIZE, writable=False)
    os.close(good)


def test_ring_beyond_the_limit_says_how_much_it_would_need() -> None:
    with pytest.raises(DeviceError) as caught:
        create_ring(64, 2**30)
    assert caught.value.details["needed"] == 64 * stride(2**30)
