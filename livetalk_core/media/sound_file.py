"""Decoding of sound files with PyAV: every format, rate and channel count, one packet at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..errors import AudioError
from .container import decoder_reason, open_container
from .resample import Samples

_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_MISCOUNTED = 8
"""Channels from which on PyAV counts the planes of a frame wrongly: nine where there are eight."""

_CONVERT = "Convert it, for example: ffmpeg -i IN -ac 1 -ar 16000 OUT.wav"
_PIPE = "Give an ordinary file, or '-' with raw 16 kHz mono s16le samples on standard input."

logger = logging.getLogger("livetalk")


@dataclass(frozen=True)
class SoundInfo:
    """What a sound file says about itself; `seconds` is None where its header does not tell."""

    seconds: float | None
    sample_rate: int
    channels: int
    codec: str


def probe_sound(path: str | Path) -> SoundInfo:
    """Read the header of a sound file.

    Raises:
        AudioError: missing, not an ordinary file, empty, not sound.
    """
    with _open(path) as container:
        stream = _sound_stream(container, path)
        seconds = None
        if stream.duration is not None and stream.time_base is not None:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            seconds = container.duration / 1e6
        codec = stream.codec_context
        return SoundInfo(seconds, int(codec.sample_rate), int(codec.channels), str(codec.name))


def decode_file(path: str | Path) -> Iterator[tuple[Samples, int]]:
    """Yield (mono float32 [n], samples per second), decoding only as far as it is read.

    Raises:
        AudioError: the file cannot be used; damage after the first sound only ends it, with a warning.
    """
    seconds = 0.0
    with _open(path) as container:
        stream = _sound_stream(container, path)
        try:
            for frame in container.decode(stream):
                mono = _mono(frame)[: _playable(frame, stream)]
                if len(mono):
                    yield mono, int(frame.sample_rate)
                    seconds += len(mono) / frame.sample_rate
        except (av.FFmpegError, OSError) as error:
            if not seconds:
                raise AudioError(
                    f"The sound file {path} is damaged: {decoder_reason(error)}.", _CONVERT, file=str(path)
                ) from error
            logger.warning(
                "%s is damaged after %.2f s (%s); the sound up to there is used.",
                path,
                seconds,
                decoder_reason(error),
            )


def _open(path: str | Path) -> Any:
    return open_container(path, "sound file", AudioError, _PIPE, _CONVERT)


def _sound_stream(container: Any, path: str | Path) -> Any:
    # A sound stream without a rate has no decodable header.
    streams = [
        stream
        for stream in container.streams.audio
        if stream.codec_context and stream.codec_context.sample_rate
    ]
    if not streams:
        raise AudioError(
            f"{path} holds no sound that can be read.", "Give a file with a sound track.", file=str(path)
        )
    return streams[0]


def _mono(frame: Any) -> Samples:
    """Average over the channels as float32 in [-1, 1]; whole-number formats scale by their full range."""
    channels = len(frame.layout.channels)
    kind = _SAMPLE_TYPES[frame.format.packed.name]
    if frame.format.is_planar and channels >= _MISCOUNTED:
        packed = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
        (frame,) = packed.resample(frame)
    if frame.format.is_planar:
        data = np.stack([np.frombuffer(plane, kind, frame.samples) for plane in frame.planes])
    else:
        data = np.frombuffer(frame.planes[0], kind, frame.samples * channels).reshape(-1, channels).T
    if data.dtype == np.uint8:
        data = (data.astype(np.float32) - 128) / 128
    elif data.dtype.kind == "i":
        data = data / np.float64(2 ** (8 * data.dtype.itemsize - 1))
    mono: Samples = data.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mono


def _playable(frame: Any, stream: Any) -> int:
    """Samples of the frame before the end that the header states.

    The last AAC packet is filled up with padding. Only a frame that crosses the stated end is cut, so a
    header that lies costs at most one packet.
    """
    if not stream.duration or frame.pts is None or not frame.time_base:
        return int(frame.samples)
    end = ((stream.start_time or 0) + stream.duration) * stream.time_base
    left = round((end - frame.pts * frame.time_base) * frame.sample_rate)
    return left if 0 < left < frame.samples else int(frame.samples)
