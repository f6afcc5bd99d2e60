"""A stream's frames in shared memory without a name: a ring of slots in a sealed memfd.

Each slot begins with a header whose sequence number is odd while the slot is written and even when it is
complete. The supervisor decides who may write or read a slot; the number is the check that nothing went wrong.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DeviceError, ProtocolError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PAGE = 4096
MAX_RING = 8 * 2**30
_HEADER = struct.Struct("<QQIIBB2xIIIIQ")  # sequence, stream, epoch, chunk, dtype, dims, shape, first frame
_UINT8 = 1


class SlotHeader(NamedTuple):
    """What a slot holds."""

    sequence: int
    stream: int
    epoch: int
    chunk: int
    shape: tuple[int, int, int, int]
    first_frame: int


def create_ring(slots: int, slot_bytes: int) -> int:
    """Descriptor of a memfd for `slots` slots of `slot_bytes` frame bytes each, sealed against resizing.

    Raises:
        DeviceError: more than this machine or the limit allows; says how much was asked for.
    """
    import fcntl

    size = slots * stride(slot_bytes)
    if not 0 < size <= MAX_RING:
        raise DeviceError(
            f"A ring of {slots} slots of {slot_bytes} bytes needs {size} bytes, more than {MAX_RING}.",
            "Use smaller pictures or fewer slots.", needed=size,
        )  # fmt: skip
    try:
        descriptor = os.memfd_create("livetalk", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, size)
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise DeviceError(
            f"No shared memory of {size} bytes ({error.strerror}).",
            "Close other programs, or use smaller pictures or fewer slots.", needed=size,
        ) from error  # fmt: skip
    return descriptor


def read_only(descriptor: int) -> int:
    """A second descriptor of the same memory, for a reader."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def stride(slot_bytes: int) -> int:
    """Bytes from one slot to the next: a page for the header, frames in whole pages."""
    return PAGE + -(-slot_bytes // PAGE) * PAGE


def require_sealed(descriptor: int, size: int) -> None:
    """Raise ProtocolError unless a descriptor is a memfd of exactly `size` bytes that cannot change its size."""
    import fcntl

    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
        actual = os.fstat(descriptor).st_size
    except OSError:
        raise ProtocolError("The descriptor that came along is not shared memory.") from None
    needed = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    if seals & needed != needed or actual != size:
        raise ProtocolError(f"The shared memory has {actual} bytes, {size} sealed ones were announced.")


class FrameRing:
    """The mapped ring, at the writer's or at a reader's end.

    Args:
        descriptor: From `create_ring` or `read_only`; stays the caller's.
        slots, slot_bytes: As created.
        writable: Map for writing.

    Raises:
        ProtocolError: the memory is not what was announced.
    """

    def __init__(self, descriptor: int, slots: int, slot_bytes: int, *, writable: bool) -> None:
        self.slots, self.slot_bytes, self._stride = slots, slot_bytes, stride(slot_bytes)
        size = slots * self._stride
        require_sealed(descriptor, size)
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        # The pages are made here, not while the first chunks are handed over.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        self._map = mmap.mmap(descriptor, size, flags=flags, prot=access)

    def write(
        self, slot: int, frames: NDArray[np.uint8], *, stream: int, epoch: int, chunk: int, first_frame: int
    ) -> None:
        """Copy frames [F,H,W,3] into a slot that the supervisor gave out."""
        target = self.begin(slot, frames.shape)
        target[...] = frames
        self.finish(slot, frames.shape, stream=stream, epoch=epoch, chunk=chunk, first_frame=first_frame)

    def begin(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Mark a slot as being written; returns its frames [F,H,W,3] to be filled, from a GPU directly."""
        base = self._base(slot)
        self._fits(shape)
        (sequence,) = struct.unpack_from("<Q", self._map, base)
        struct.pack_into("<Q", self._map, base, sequence | 1)
        return self._view(base, shape)

    def finish(
        self, slot: int, shape: tuple[int, ...], *, stream: int, epoch: int, chunk: int, first_frame: int
    ) -> None:
        """Write the header of a filled slot, its sequence number last."""
        base = self._base(slot)
        (sequence,) = struct.unpack_from("<Q", self._map, base)
        fields = (stream, epoch, chunk, _UINT8, 4, *shape, first_frame)
        _HEADER.pack_into(self._map, base, sequence, *fields)
        struct.pack_into("<Q", self._map, base, sequence + 1)

    def read(self, slot: int, *, stream: int, epoch: int, chunk: int) -> tuple[SlotHeader, NDArray[np.uint8]]:
        """Header and a view of the frames [F,H,W,3] of a slot; the view stays valid as long as it is kept.

        Raises:
            ProtocolError: the slot holds something else, or is being written.
        """
        base = self._base(slot)
        sequence, of, at, number, dtype, dims, *rest = _HEADER.unpack_from(self._map, base)
        shape = (rest[0], rest[1], rest[2], rest[3])
        if sequence & 1 or (of, at, number, dtype, dims) != (stream, epoch, chunk, _UINT8, 4):
            raise ProtocolError(f"Slot {slot} does not hold chunk {chunk} of the stream.", chunk=chunk)
        self._fits(shape)
        frames = self._view(base, shape)
        frames.flags.writeable = False
        return SlotHeader(sequence, of, at, number, shape, rest[4]), frames

    def sequence(self, slot: int) -> int:
        """The slot's sequence number now."""
        (sequence,) = struct.unpack_from("<Q", self._map, self._base(slot))
        return int(sequence)

    def _view(self, base: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        import numpy as np

        count = shape[0] * shape[1] * shape[2] * shape[3]
        return np.frombuffer(self._map, np.uint8, count, base + PAGE).reshape(shape)

    def _base(self, slot: int) -> int:
        if not 0 <= slot < self.slots:
            raise ProtocolError(f"There is no slot {slot}; the ring has {self.slots}.")
        return slot * self._stride

    def _fits(self, shape: tuple[int, ...]) -> None:
        frames, height, width, channels = shape
        if channels != 3 or not 0 < frames * height * width * channels <= self.slot_bytes:
            raise ProtocolError(f"Frames of shape {list(shape)} do not fit into {self.slot_bytes} bytes.")
