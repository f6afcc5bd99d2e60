"""How any video of a talking person holds out: lips against its sound, look against a reference, over time.

Nothing but the video, its sound and one picture is needed, so generated films of any model can be judged, also those
without a true video to compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ...errors import LiveTalkError
from ...lip_sync import lag_correlation, mouth_opening
from ...lip_sync.syncnet import SyncScore
from ...media import cover_and_crop, loudness_envelope, read_video_at, read_video_sound
from ...retrospective import Appearance, appearance, measure_drift

Frames = NDArray[np.uint8]
Curve = NDArray[np.float64]

FPS = 25
SAMPLE_RATE = 16_000
EDGE_CHUNKS = 30
"""The first and the last so many chunks of a video are compared."""


@dataclass(frozen=True)
class VideoMeasures:
    """What was measured; curves have one value per chunk.

    Attributes:
        name: Of the video.
        frames: Video frames at 25 per second.
        slice_frames: New frames per chunk.
        color: Distance of the Lab moments to the reference; 3 is a visible difference.
        sharpness: Sharpness over the reference's.
        identity: Structural similarity to the reference of what stands still: 1 is the same.
        flicker: Mean second difference over time in the stiller half of the pixels, in steps of 255.
        jump: Change from the chunk before to this one over the median change inside chunks; the first is 1.
        opening: Of the mouth, per frame; drawn faces only.
        lips: Correlation of the mouth's opening with the sound's loudness at the best lag; None without sound.
        lag: That lag in frames; positive: the mouth comes late.
        sync: SyncNet's score, where its weights were given.
    """

    name: str
    frames: int
    slice_frames: int
    color: Curve
    sharpness: Curve
    identity: Curve
    flicker: Curve
    jump: Curve
    opening: NDArray[np.float32]
    lips: float | None = None
    lag: int | None = None
    sync: SyncScore | None = None

    @property
    def seconds(self) -> Curve:
        """Time of each chunk's first frame."""
        return np.arange(len(self.color)) * self.slice_frames / FPS

    @property
    def border_jump(self) -> float:
        """Median jump at chunk borders; 1 without borders."""
        return float(np.median(self.jump[1:])) if len(self.jump) > 1 else 1.0

    def ends(self) -> dict[str, tuple[float, float]]:
        """Means of each curve over the first and over the last chunks: 30, or a third of fewer than 90."""
        count = max(1, min(EDGE_CHUNKS, len(self.color) // 3))
        curves = {name: getattr(self, name) for name in ("color", "sharpness", "identity", "flicker", "jump")}
        return {name: (float(c[:count].mean()), float(c[-count:].mean())) for name, c in curves.items()}


@dataclass
class VideoMeter:
    """Takes a video in block by block, in bounded memory.

    Args:
        slice_frames: New frames per chunk, so that borders are known.
        reference: What it should look like, uint8 [H,W,3]; None: its own first frame.
    """

    slice_frames: int
    reference: Frames | None = None
    _anchor: Appearance | None = None
    _last: Frames | None = None
    _rows: list[tuple[float, float, float, float]] = field(default_factory=list)
    _borders: list[float] = field(default_factory=list)
    _inside: list[float] = field(default_factory=list)
    _openings: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, chunk: Frames) -> None:
        """One chunk's frames uint8 [F,H,W,3]; only the last chunk may be short."""
        if self._anchor is None:
            picture = chunk[0] if self.reference is None else self.reference
            if picture.shape != chunk.shape[1:]:
                # As a model is given a picture of another size.
                picture = cover_and_crop(Image.fromarray(picture), chunk.shape[2], chunk.shape[1])
            self._anchor = appearance(as_video(picture[None]))
        drift = measure_drift(as_video(chunk), self._anchor)
        self._rows.append((drift.color, drift.sharpness, drift.similarity, flicker(chunk)))
        self._inside.extend(_change(a, b) for a, b in pairwise(chunk))
        if self._last is not None:
            self._borders.append(_change(self._last, chunk[0]))
        self._last = chunk[-1].copy()
        self._openings.append(mouth_opening(chunk))

    def finish(self, name: str, samples: NDArray[np.float32] | None) -> VideoMeasures:
        """All measures; `samples` is the sound [S] at 16 kHz."""
        opening = np.concatenate(self._openings)
        # Pictures that are shown twice, as at lower rates, say nothing of how much moves.
        moving = [change for change in self._inside if change > 0]
        inside = max(float(np.median(moving)) if moving else 0.0, 1e-6)
        jump = np.array([1.0, *(border / inside for border in self._borders)])
        color, sharpness, identity, flickers = np.array(self._rows, np.float64).T
        lips = None if samples is None else _lips(opening, samples)
        lag, score = lips or (None, None)
        return VideoMeasures(
            name, len(opening), self.slice_frames, color, sharpness, identity, flickers, jump, opening, score, lag
        )


def measure_video(
    path: Path, slice_frames: int, reference: Frames | None = None, name: str = "", first_frames: int | None = None
) -> VideoMeasures:
    """Measure a video file.

    Args:
        path: The file.
        slice_frames: New frames per chunk.
        reference: What it should look like; None: its own first frame.
        name: For tables, in place of the file's.
        first_frames: New frames of the first chunk, where these are others.

    Raises:
        LiveTalkError: it cannot be read, or holds no frame.
    """
    meter = VideoMeter(slice_frames, reference)
    block: list[Frames] = []
    length = slice_frames if first_frames is None else first_frames
    for frame in read_video_at(path, FPS):
        block.append(frame)
        if len(block) == length:
            meter.add(np.stack(block))
            block, length = [], slice_frames
    # A single frame at the end has no change over time of its own.
    if len(block) > 1 or (block and meter._last is None):
        meter.add(np.stack(block))
    if meter._last is None:
        raise LiveTalkError(f"{path} holds no frames.", "Give a video.", file=str(path))
    return meter.finish(name or path.name, read_video_sound(path, SAMPLE_RATE))


def flicker(frames: Frames) -> float:
    """Mean |f[t-1] - 2 f[t] + f[t+1]| in the half of the pixels that change least, in steps of 255."""
    if len(frames) < 3:
        return 0.0
    luma = frames.astype(np.float32).mean(axis=-1)
    still = luma.std(axis=0)
    second = np.abs(luma[:-2] - 2 * luma[1:-1] + luma[2:]).mean(axis=0)
    return float(second[still <= np.median(still)].mean())


def as_video(frames: Frames) -> Tensor:
    """uint8 [F,H,W,3] -> [1,3,F,H,W] in [-1,1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def _lips(opening: NDArray[np.float32], samples: NDArray[np.float32]) -> tuple[int, float]:
    heard = loudness_envelope(samples, SAMPLE_RATE, FPS)
    count = min(len(opening), len(heard))
    return lag_correlation(opening[:count], heard[:count], max_lag=10)


def _change(before: Frames, after: Frames) -> float:
    return float(np.abs(after.astype(np.int16) - before).mean())
