"""SyncNet's score of a video file: where the face is, how frames become what the network sees."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import AudioError
from ...lip_sync.syncnet import SIDE, SyncNet, SyncScore, sync_score
from ...media import read_video_at, read_video_sound
from ..data.raw import Box
from ..data.videos import read_face_box
from .video import FPS, SAMPLE_RATE, Frames


def video_sync(path: Path, network: SyncNet) -> SyncScore:
    """Score a video; the face is where `NAME.face.json` beside it says, or the largest square in the middle.

    Raises:
        AudioError: no sound, or less than five frames.
        LiveTalkError: the video or the face box cannot be read.
    """
    samples = read_video_sound(path, SAMPLE_RATE)
    if samples is None:
        raise AudioError(f"{path} has no sound.", "Leave --syncnet out.", file=str(path))
    box = read_face_box(path)
    return sync_score(network, _faces(path, box), samples)


def _faces(path: Path, box: Box | None) -> Iterator[Frames]:
    for frame in read_video_at(path, FPS):
        height, width = frame.shape[:2]
        place = _square(width, height, box)
        picture = Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=place)
        yield np.asarray(picture)


def _square(width: int, height: int, box: Box | None) -> tuple[float, float, float, float]:
    """The square around a face box that lies within the picture; without one that of the whole."""
    left, top, right, bottom = box or (0.0, 0.0, 1.0, 1.0)
    side = min(max((right - left) * width, (bottom - top) * height), width, height)
    x = min(max((left + right) / 2 * width - side / 2, 0), width - side)
    y = min(max((top + bottom) / 2 * height - side / 2, 0), height - side)
    return x, y, x + side, y + side
