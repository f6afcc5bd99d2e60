"""Small sound files of many kinds for the tests of what reads them."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from livetalk_core.media.sound_reader import SoundReader

RATE = 16_000


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int, width: int = 2) -> Path:
    """samples float [n] or [n, channels]; width in bytes (1 is unsigned, as WAV has it)."""
    flat = np.atleast_2d(samples.T).T
    scaled = np.round(flat * (2 ** (8 * width - 1) - 1)).astype("<i4")
    raw = scaled.view(np.uint8).reshape(*scaled.shape, 4)[..., :width].copy()
    if width == 1:
        raw = (scaled + 128).astype(np.uint8)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(flat.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw.tobytes())
    return path


def encode(path: Path, codec: str, samples: np.ndarray, rate: int, channels: int = 1, picture: bool = False) -> Path:
    with av.open(str(path), "w") as out:
        layout = {1: "mono", 2: "stereo", 8: "7.1"}[channels]
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if picture:
            video = out.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            out.mux(video.encode(image) + video.encode(None))
        interleaved = np.repeat(samples, channels)[None]
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def read_all(reader: SoundReader) -> np.ndarray:
    with reader:
        return np.concatenate(list(reader))
