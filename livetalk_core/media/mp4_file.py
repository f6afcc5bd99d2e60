"""An MP4 file that can be played while it grows, and becomes an ordinary one when it is complete."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import av

from .encoders import Frames
from .fragments import FragmentWriter
from .resample import Samples

_HEADER = 8
"""Bytes of a box's size and kind."""


class Mp4Writer:
    """Record H.264 and AAC into fragmented MP4: a killed program leaves all whole fragments playable.

    Args:
        path: The recording, overwritten.
        width, height: Frame size in pixels, even numbers.
        fps: Frames per second.
        sample_rate: Samples per second of the sound.
    """

    def __init__(self, path: Path, width: int, height: int, fps: int, sample_rate: int) -> None:
        self._end = 0
        # Unbuffered: every fragment is out of this process as soon as it is made.
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 - closed by close() or abort()
        try:
            self._fragments = FragmentWriter(width, height, fps, sample_rate)
            self._append(self._fragments.head)
        except BaseException:
            self._file.close()
            raise

    def write(self, frames: Frames, samples: Samples | None = None) -> None:
        """Append frames uint8 [F, H, W, 3] and the sound that goes on from where it ended, float32 [n]."""
        self._append(self._fragments.write(frames, samples))

    def close(self) -> None:
        """Finish the recording: sound exactly as long as the pictures."""
        self._append(self._fragments.finish())
        self._file.close()

    def abort(self) -> None:
        """Let go of the file, whatever state it is in."""
        with suppress(OSError):
            self._file.close()

    def _append(self, segment: bytes) -> None:
        """Write a segment so that it is there whole or not at all, wherever the program is killed.

        Its first box header comes last. Without it readers find a box of size and kind zero, which by the
        standard reaches to the end of the file, and skip it; a torn fragment would make some refuse the file.
        """
        start, data = self._end, memoryview(segment)
        self._write(start + _HEADER, data[_HEADER:])
        self._write(start, data[:_HEADER])
        self._end += len(data)

    def _write(self, position: int, data: memoryview) -> None:
        self._file.seek(position)
        while data:
            # A nearly full disk takes a part and reports the error for the rest.
            data = data[self._file.write(data) :]


def rewrite_mp4(recording: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a fragmented recording, without encoding again, to an ordinary MP4 whose index comes first.

    Raises:
        av.FFmpegError, OSError: the target cannot be written.
    """
    options = {"fflags": "+bitexact", "movflags": "+faststart"}
    with (
        av.open(os.fspath(recording)) as source,
        av.open(os.fspath(target), "w", format="mp4", container_options=options) as result,
    ):
        streams = {stream.index: result.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                result.mux(packet)
