"""Frames and sound into Matroska without any loss: FFV1 and float PCM."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from .encoders import Frames, SoundQueue, sound_block
from .resample import Samples


class MatroskaWriter:
    """Write frames and mono sound into a file that stays readable up to its last full cluster.

    Args:
        path: The file, overwritten.
        width, height: Frame size in pixels.
        fps: Frames per second.
        sample_rate: Samples per second of the sound.
    """

    def __init__(self, path: Path, width: int, height: int, fps: int, sample_rate: int) -> None:
        self.frames_written = 0
        self._fps, self._sample_rate = fps, sample_rate
        self._queue = SoundQueue(sample_rate, fps)
        self._sound_given = 0
        # bitexact: no random identifiers and no library versions, so equal input gives equal bytes.
        # A short cluster is what a killed program loses.
        options = {"fflags": "+bitexact+flush_packets", "cluster_time_limit": "1000"}
        self._container = av.open(str(path), "w", format="matroska", container_options=options)
        self._video = self._add_video(width, height)
        self._sound: Any = self._container.add_stream("pcm_f32le", rate=sample_rate, layout="mono")
        self._sound.codec_context.flags |= int(av.codec.context.Flags.bitexact)

    def write(self, frames: Frames, samples: Samples | None = None) -> None:
        """Append frames uint8 [F, H, W, 3] and the sound that goes on from where it ended, float32 [n]."""
        if samples is not None:
            self._queue.push(samples)
        for pixels in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24").reformat(format="bgr0")
            picture.pts, picture.time_base = self.frames_written, Fraction(1, self._fps)
            self._mux(self._video.encode(picture))
            self.frames_written += 1
        self._write_sound(self._queue.take(self.frames_written))

    def close(self) -> None:
        """Finish: sound exactly as long as the pictures."""
        self._write_sound(self._queue.take(self.frames_written, pad=True))
        self._mux(self._video.encode(None))
        self._mux(self._sound.encode(None))
        self._container.close()

    def abort(self) -> None:
        """Let go of the file, whatever state it is in."""
        # The trailer of a file that is thrown away may well fail on the same full disk.
        with suppress(av.FFmpegError, OSError, ValueError):
            self._container.close()

    def _add_video(self, width: int, height: int) -> Any:
        options = {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}
        stream: Any = self._container.add_stream("ffv1", rate=self._fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "bgr0"
        codec = stream.codec_context
        codec.time_base = Fraction(1, self._fps)
        # One thread: the same bytes on every machine, and the cores belong to the model.
        codec.thread_count = 1
        codec.flags |= int(av.codec.context.Flags.bitexact)
        return stream

    def _write_sound(self, block: Samples) -> None:
        if len(block):
            frame = sound_block(block, self._sound_given, self._sample_rate, "flt")
            self._sound_given += len(block)
            self._mux(self._sound.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if packet.stream is self._video and not packet.duration:
                # Without it the last picture of a file would last no time.
                packet.duration = 1
            self._container.mux(packet)
