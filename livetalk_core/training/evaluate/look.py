"""How a generated video looks beside the true one: drift, sharpness, identity, blinks, border jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ...lip_sync import count_blinks, eye_closure
from ...retrospective import sharpness
from ..avatars.avatar import Identity, eye_boxes, jaw_box, reference_frame
from .cases import FPS, EvaluationCase, Frames

Curve = NDArray[np.float64]

_THUMBNAIL = 16
_GALLERY_SEED = 5
_EDGE_CHUNKS = 30


@dataclass(frozen=True)
class Drift:
    """Look per chunk, each [chunks].

    Attributes:
        backdrop: Mean colour error of the still background against the reference, in steps of 255.
        colour: Mean colour error of the whole frame against the true video, in steps of 255.
        sharpness: Strength of detail (mean absolute Laplacian) over that of the true video.
        eyes: The same around the eyes.
        identity: 1 where the right person is the nearest in the gallery, else 0.
    """

    backdrop: Curve
    colour: Curve
    sharpness: Curve
    eyes: Curve
    identity: Curve

    def ends(self) -> dict[str, tuple[float, float]]:
        """Mean of each figure over the first and over the last chunks: 30, or a third of fewer than 90."""
        count = max(1, min(_EDGE_CHUNKS, len(self.backdrop) // 3))
        return {
            name: (float(values[:count].mean()), float(values[-count:].mean())) for name, values in vars(self).items()
        }


@dataclass(frozen=True)
class Borders:
    """Frame difference at each chunk border over the median difference inside chunks.

    Attributes:
        jumps: Of the whole frame, one per border.
        still_jumps: Of the frame without the jaw.
        inside: Median difference inside chunks, whole frame, in steps of 255.
    """

    jumps: tuple[float, ...]
    still_jumps: tuple[float, ...]
    inside: float

    @property
    def whole(self) -> float:
        """Median jump of the whole frame; 0 without borders."""
        return median(self.jumps)

    @property
    def still(self) -> float:
        """Median jump of the frame without the jaw; 0 without borders."""
        return median(self.still_jumps)


def median(values: Sequence[float]) -> float:
    """The median, 0 of nothing."""
    return float(np.median(values)) if len(values) else 0.0


@dataclass(frozen=True)
class Blinks:
    """Blinks per minute: measured in the video, measured in the true video, and really drawn there."""

    video: float
    truth: float
    drawn: float


class Gallery:
    """Small pictures of many people, to tell which of them a frame shows."""

    def __init__(self, cases: Sequence[EvaluationCase], others: Sequence[int], size: int) -> None:
        rng = np.random.default_rng(_GALLERY_SEED)
        pictures = {case.identity.seed: case.reference for case in cases}
        pictures |= {seed: reference_frame(Identity.from_seed(seed), rng, size) for seed in others}
        self._seeds = list(pictures)
        self._thumbnails = np.stack([_thumbnail(picture) for picture in pictures.values()])

    def nearest(self, frame: Frames) -> int:
        """Seed of the person whose picture is nearest to a frame uint8 [H,W,3]."""
        distance = np.square(self._thumbnails - _thumbnail(frame)).sum(axis=(1, 2, 3))
        return self._seeds[int(np.argmin(distance))]


def measure_drift(case: EvaluationCase, frames: Frames, slice_frames: int, gallery: Gallery) -> Drift:
    """Look of generated `frames` [F,H,W,3] chunk by chunk."""
    backdrop = still_pixels(case)
    wanted = case.reference[backdrop].mean(axis=0)
    eyes = _eyes(case.size)
    rows = []
    for start in range(0, len(frames), slice_frames):
        video, truth = frames[start : start + slice_frames], case.truth[start : start + slice_frames]
        rows.append(
            (
                np.abs(video[:, backdrop].mean(axis=(0, 1)) - wanted).mean() if backdrop.any() else np.nan,
                np.abs(video.mean(axis=(0, 1, 2)) - truth.mean(axis=(0, 1, 2))).mean(),
                detail(video) / max(detail(truth), 1e-6),
                detail(video[eyes]) / max(detail(truth[eyes]), 1e-6),
                float(gallery.nearest(video[len(video) // 2]) == case.identity.seed),
            )
        )
    return Drift(*np.array(rows, np.float64).T)


def still_pixels(case: EvaluationCase) -> NDArray[np.bool_]:
    """Pixels [H,W] of the background: those that never change in the true video and its reference picture."""
    low, high = case.truth.min(axis=0), case.truth.max(axis=0)
    still: NDArray[np.bool_] = ((low == high) & (low == case.reference)).all(axis=-1)
    return still


def detail(frames: Frames) -> float:
    """Sharpness of frames uint8 [F,H,W,3], measured as the engine measures its chunks."""
    return float(sharpness(torch.from_numpy(frames).permute(3, 0, 1, 2)[None] / 127.5 - 1))


def measure_borders(frames: Frames, slice_frames: int) -> Borders:
    """Frame differences at chunk borders over those inside; without end where only borders move."""
    size = frames.shape[1]
    left, top, right, bottom = jaw_box(size)
    outside = np.ones((size, size), np.bool_)
    outside[top:bottom, left:right] = False
    change = np.array([_change(a, b, outside) for a, b in pairwise(frames)]).reshape(-1, 2)
    at_border = np.arange(1, len(change) + 1) % slice_frames == 0
    inside = np.median(change[~at_border], axis=0) if (~at_border).any() else np.zeros(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        jumps = np.nan_to_num(change[at_border] / inside, nan=0.0, posinf=np.inf)
    return Borders(tuple(jumps[:, 0].tolist()), tuple(jumps[:, 1].tolist()), float(inside[0]))


def count_all_blinks(case: EvaluationCase, frames: Frames) -> Blinks:
    """Blinks per minute of generated `frames` and of the true video."""
    minutes = len(frames) / FPS / 60
    counts = (count_blinks(curve) for curve in (eye_closure(frames), eye_closure(case.truth), case.blink))
    return Blinks(*(count / minutes for count in counts))


def _change(before: Frames, after: Frames, outside: NDArray[np.bool_]) -> tuple[float, float]:
    difference = np.abs(after.astype(np.int16) - before)
    return float(difference.mean()), float(difference[outside].mean())


def _eyes(size: int) -> tuple[slice, slice, slice]:
    """Index of both eyes in frames [F,H,W,3]."""
    first, second = eye_boxes(size)
    return slice(None), slice(first[1], second[3]), slice(first[0], second[2])


def _thumbnail(picture: Frames) -> NDArray[np.float32]:
    whole = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(whole.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), np.float32)
