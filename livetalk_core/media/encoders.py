"""Encoders of picture and sound without a container, and the sound that waits for its pictures."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError
from .resample import Samples

Frames = NDArray[np.uint8]

AAC_RATE = 48_000
"""Samples per second of encoded sound: every player and editor takes it; some refuse the 16 kHz of the model."""

AAC_BIT_RATE = 128_000
_H264_ENCODERS = ("libx264", "libopenh264")
_BT709 = 1
_LIMITED_RANGE = 1


def h264_encoder() -> str:
    """Name of the H.264 encoder to use.

    Raises:
        MissingDependencyError: the installed FFmpeg libraries have none.
    """
    for name in _H264_ENCODERS:
        with suppress(av.codec.codec.UnknownCodecError):
            av.Codec(name, "w")
            return name
    raise MissingDependencyError(
        "The installed PyAV has no H.264 encoder.",
        "Install PyAV from PyPI (pip install av), or write an .mkv instead.",
    )


def video_encoder(width: int, height: int, fps: int) -> Any:
    """An opened H.264 encoder that gives every picture's packet at once and sets no key frames of its own accord.

    Looking ahead would save a tenth of the bytes, and lose the last pictures of every killed run.

    Args:
        width, height: Even numbers of pixels.
        fps: Pictures per second; the time base is one picture.
    """
    name = h264_encoder()
    codec: Any = av.CodecContext.create(name, "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, fps), Fraction(fps, 1)
    # Without B-frames no picture is reordered, so pictures start at exactly 0.
    codec.max_b_frames = 0
    codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
    codec.color_range = _LIMITED_RANGE
    if name == "libx264":
        quality = {"crf": "18", "preset": "veryfast", "tune": "zerolatency"}
        codec.options = {**quality, "g": str(100 * fps), "sc_threshold": "0"}
    else:
        codec.bit_rate = 4_000_000
    _repeatable(codec)
    codec.open()
    return codec


def sound_encoder() -> Any:
    """An opened encoder of mono AAC at `AAC_RATE`."""
    codec: Any = av.CodecContext.create("aac", "w")
    codec.layout, codec.format, codec.sample_rate = "mono", "fltp", AAC_RATE
    codec.bit_rate, codec.time_base = AAC_BIT_RATE, Fraction(1, AAC_RATE)
    _repeatable(codec)
    codec.open()
    return codec


def yuv_picture(pixels: Frames, number: int, fps: int) -> Any:
    """The picture uint8 [H, W, 3] as H.264 takes it, shown at `number` / `fps` seconds."""
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    picture = picture.reformat(format="yuv420p", dst_colorspace=av.video.reformatter.Colorspace.ITU709)
    picture.pts, picture.time_base = number, Fraction(1, fps)
    return picture


def sound_block(block: Samples, start: int, rate: int, kind: str) -> Any:
    """Samples float32 [n] as encoders take them, the first one at `start` / `rate` seconds."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block)[None], format=kind, layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
    return frame


def _repeatable(codec: Any) -> None:
    # One thread: the same bytes on every machine, and the cores belong to the model.
    codec.thread_count = 1
    codec.flags |= int(av.codec.context.Flags.bitexact) | int(av.codec.context.Flags.global_header)


class SoundQueue:
    """Sound that waits for its pictures, so that both end together.

    Args:
        sample_rate: Samples per second.
        fps: Pictures per second.
    """

    def __init__(self, sample_rate: int, fps: int) -> None:
        self._sample_rate, self._fps = sample_rate, fps
        self._sent = 0
        self._waiting: Samples = np.zeros(0, np.float32)

    def push(self, samples: Samples) -> None:
        """Take sound that goes on from where it ended, float32 [n]."""
        self._waiting = np.concatenate([self._waiting, np.asarray(samples, np.float32)])

    def take(self, frames: int, *, pad: bool = False) -> Samples:
        """The sound of the first `frames` pictures that was not taken before; `pad` fills up with silence."""
        due = round(frames * self._sample_rate / self._fps) - self._sent
        block, self._waiting = self._waiting[:due], self._waiting[due:]
        if pad:
            block = np.pad(block, (0, due - len(block)))
        self._sent += len(block)
        return block
