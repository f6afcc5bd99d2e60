"""The pictures of a video at a constant rate, by the clock of the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from .video_reader import damaged, open_video, upright

_ROUNDING = Fraction(1, 10)
"""Times in some files are rounded to thousandths of a second: so much of a frame may be missing at the end."""


def read_video_at(path: str | Path, fps: int) -> Iterator[NDArray[np.uint8]]:
    """Yield upright frames, RGB uint8 [H, W, 3]: frame i shows the picture on screen i / fps after the first.

    Raises:
        LiveTalkError: the file is not a readable video; in the middle, too, if it is damaged there.
    """
    last: NDArray[np.uint8] | None = None
    made, end = 0, Fraction(0)
    with open_video(path) as container:
        try:
            shown_for = 1 / Fraction(container.streams.video[0].average_rate or fps)
            for time, picture in _timed_pictures(container):
                while last is not None and made < math.ceil(time * fps):
                    yield last
                    made += 1
                last, end = picture, time + shown_for
        except av.FFmpegError as error:
            raise damaged(path, error) from error
    while last is not None and made < end * fps - _ROUNDING:
        yield last
        made += 1


def _timed_pictures(container: Any) -> Iterator[tuple[Fraction, NDArray[np.uint8]]]:
    """Upright pictures, each with the seconds since the first."""
    first: Fraction | None = None
    rate = Fraction(container.streams.video[0].average_rate or 25)
    for number, frame in enumerate(container.decode(video=0)):
        # H.264 in AVI has decoding times only, raw streams have none.
        stamp = frame.pts if frame.pts is not None else frame.dts
        time = number / rate if stamp is None else Fraction(stamp * frame.time_base)
        first = time if first is None else first
        yield time - first, upright(frame)
