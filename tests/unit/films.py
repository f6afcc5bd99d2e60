"""Small films for the tests of video files."""

from __future__ import annotations

from pathlib import Path

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
