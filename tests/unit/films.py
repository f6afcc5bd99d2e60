"""Small films for the tests of video files."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from livetalk_core.media import VideoWriter

FPS = 25
RATE = 16_000
PER_FRAME = RATE // FPS


def moving(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A gradient that moves, uint8 [F, H, W, 3]."""
    f, y, x = np.meshgrid(np.arange(count), np.arange(height), np.arange(width), indexing="ij")
    return np.stack([(x * 3 + f * 4) % 256, (y * 4) % 256, (x + y + f) % 256], axis=-1).astype(np.uint8)


def noise(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write(path: Path, frames: np.ndarray, samples: np.ndarray | None, chunk: int = 28) -> None:
    with VideoWriter(path, frames.shape[2], frames.shape[1], FPS) as writer:
        for start in range(0, len(frames), chunk):
            stop = start + chunk
            part = None if samples is None else samples[start * PER_FRAME : stop * PER_FRAME]
            writer.write(frames[start:stop], part)


def talk(seconds: float, seed: int = 0, moving: bool = False, width: int = 64, height: int = 64) -> np.ndarray:
    """Frames whose middle moves; the border only if asked for."""
    rng = np.random.default_rng(seed)
    back = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([back] * round(seconds * 25))
    for number, frame in enumerate(frames):
        if moving:
            frame[:] = np.roll(back, 3 * number, axis=1)
        frame[height // 3 : -height // 4, width // 3 : -width // 3] = number * 3 % 256
    return frames


def write_talk(path: Path, frames: np.ndarray, level: float = 0.1) -> Path:
    """Frames with noise as their sound."""
    with VideoWriter(path, frames.shape[2], frames.shape[1], 25) as writer:
        writer.write(frames, np.random.default_rng(1).normal(0, level, len(frames) * 640).astype(np.float32))
    return path


def mux(
    path: Path, frames: np.ndarray, samples: np.ndarray | None = None, *, fps: int = FPS, sound_at: float = 0.0
) -> Path:
    """A file as other programs write it: tracks that begin and end apart, or no sound at all."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        lossless = path.suffix == ".mkv"
        video = container.add_stream("ffv1" if lossless else "mpeg4", rate=fps)
        video.pix_fmt = "bgr0" if lossless else "yuv420p"
        video.height, video.width = frames.shape[1:3]
        sound = None if samples is None else container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        # Pictures come later instead, because not every format has times before 0.
        first = round(max(0.0, -sound_at) * fps)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture = picture.reformat(format=video.pix_fmt)
            picture.pts = first + number
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound is not None and samples is not None:
            block = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, round(max(0.0, sound_at) * RATE), Fraction(1, RATE)
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


def on_its_side(source: Path, target: Path) -> Path:
    """A copy of an MP4 that asks to be turned by a quarter clockwise, as telephones write theirs."""
    data = bytearray(source.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target
