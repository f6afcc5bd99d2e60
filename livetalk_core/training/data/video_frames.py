"""The pictures of a video as training sees them: upright, at a constant rate, cut to a bucket."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from PIL import Image

from ...errors import TrainingError
from ...media import cover_and_crop, read_video
from ...media.video_reader import open_video, upright
from .buckets import Size, nearest_bucket
from .raw import Frames

_ROUNDING = Fraction(1, 10)


def iter_frames(path: Path, fps: int, sizes: Sequence[Size]) -> Iterator[Frames]:
    """A video's frames at a constant rate, covering and cropped to the nearest bucket: uint8 [H,W,3] each.

    Output frame i shows the picture that is on screen i / fps after the first. Damage later in the file ends it there.

    Raises:
        LiveTalkError: the file cannot be read, or holds no pictures.
    """
    last: Frames | None = None
    made, end = 0, Fraction(0)
    try:
        with open_video(path) as container:
            shown_for = 1 / Fraction(container.streams.video[0].average_rate or fps)
            for time, picture in _timed_pictures(container):
                while last is not None and made < math.ceil(time * fps):
                    yield last
                    made += 1
                if last is None:
                    size = nearest_bucket(*picture.size, sizes)
                last, end = cover_and_crop(picture, *size), time + shown_for
    except (av.FFmpegError, OSError) as error:
        if last is None:
            raise TrainingError(f"{path} cannot be decoded ({error}).", reason="unreadable") from error
    if last is None:
        raise TrainingError(f"{path} holds no pictures.", reason="no pictures")
    # Times in some files are rounded to thousandths of a second.
    while made < end * fps - _ROUNDING:
        yield last
        made += 1


def picture_size(path: Path) -> Size:
    """Width and height of a video's upright pictures.

    Raises:
        LiveTalkError: the file cannot be read.
    """
    height, width, _ = next(read_video(path)).shape
    return width, height


def _timed_pictures(container: Any) -> Iterator[tuple[Fraction, Image.Image]]:
    """Upright pictures, each with the seconds since the first."""
    first: Fraction | None = None
    rate = Fraction(container.streams.video[0].average_rate or 25)
    for number, frame in enumerate(container.decode(video=0)):
        # H.264 in AVI has decoding times only, raw streams have none.
        stamp = frame.pts if frame.pts is not None else frame.dts
        time = number / rate if stamp is None else Fraction(stamp * frame.time_base)
        first = time if first is None else first
        yield time - first, Image.fromarray(upright(frame))
