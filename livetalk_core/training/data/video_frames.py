"""The pictures of a video as training sees them: upright, at a constant rate, cut to a bucket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from ...errors import LiveTalkError, TrainingError
from ...media import cover_and_crop, read_video, read_video_at
from .buckets import Size, nearest_bucket
from .raw import Frames


def iter_frames(path: Path, fps: int, sizes: Sequence[Size]) -> Iterator[Frames]:
    """A video's frames at a constant rate, covering and cropped to the nearest bucket: uint8 [H,W,3] each.

    Damage later in the file ends it there.

    Raises:
        LiveTalkError: the file cannot be read, or holds no pictures.
    """
    size: Size | None = None
    try:
        for frame in read_video_at(path, fps):
            size = size or nearest_bucket(frame.shape[1], frame.shape[0], sizes)
            yield cover_and_crop(Image.fromarray(frame), *size)
    except LiveTalkError:
        if size is None:
            raise
    if size is None:
        raise TrainingError(f"{path} holds no pictures.", reason="no pictures")


def picture_size(path: Path) -> Size:
    """Width and height of a video's upright pictures.

    Raises:
        LiveTalkError: the file cannot be read.
    """
    height, width, _ = next(read_video(path)).shape
    return width, height
