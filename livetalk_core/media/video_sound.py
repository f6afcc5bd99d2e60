"""The sound of a video on the clock of its pictures."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from ..errors import AudioError
from .resample import Samples
from .sound_reader import open_sound
from .video_reader import open_video


def read_video_sound(path: str | Path, sample_rate: int) -> Samples | None:
    """All sound of a video, mono float32 [S]: sample 0 is what is heard when the first picture comes up.

    A track that begins later than the pictures gets zeros in front; what comes before them is cut.

    Returns:
        None where there is no sound that can be read.

    Raises:
        LiveTalkError: the file is not a readable video.
    """
    late = round(_delay(path) * sample_rate)
    try:
        with open_sound(path, sample_rate) as reader:
            blocks = list(reader)
    except AudioError:
        return None
    if not blocks:
        return None
    return np.concatenate([np.zeros(max(0, late), np.float32), *blocks])[max(0, -late) :]


def _delay(path: str | Path) -> Fraction:
    """Seconds from the first picture to the first sound; 0 where the file does not tell."""
    times = []
    for kind in ("video", "audio"):
        with open_video(path) as container:
            times.append(_first_time(container, getattr(container.streams, kind)))
    picture, sound = times
    return Fraction(0) if picture is None or sound is None else sound - picture


def _first_time(container: Any, streams: Any) -> Fraction | None:
    """Of what is decoded first, which need not be the first packet: encoders' lead-in is left out."""
    with suppress(av.FFmpegError, OSError):
        for frame in container.decode(*streams[:1]) if streams else ():
            return None if frame.pts is None else Fraction(frame.pts * frame.time_base)
    return None
