"""Reading videos back, for evaluation and proofs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import LiveTalkError
from .container import decoder_reason, open_container


@dataclass(frozen=True)
class VideoInfo:
    """Measured from the packets, not from the header; `audio_seconds` is None without sound."""

    width: int
    height: int
    fps: Fraction
    frames: int
    seconds: float
    audio_seconds: float | None
    video_codec: str
    audio_codec: str | None


def probe_video(path: str | Path) -> VideoInfo:
    """Count frames and measure where picture and sound end, without decoding.

    Raises:
        LiveTalkError: the file is not a readable video.
    """
    with open_video(path) as container:
        video = container.streams.video[0]
        if not video.average_rate:
            raise LiveTalkError(f"{path} does not say how fast its pictures follow.", "Convert it.", file=str(path))
        sound = container.streams.audio[0] if container.streams.audio else None
        try:
            frames, ends = _walk(container, video, sound)
        except av.FFmpegError as error:
            raise damaged(path, error) from error
        return VideoInfo(
            video.codec_context.width,
            video.codec_context.height,
            Fraction(video.average_rate),
            frames,
            ends.get(video.index, 0.0),
            None if sound is None else ends.get(sound.index, 0.0),
            str(video.codec_context.name),
            None if sound is None else str(sound.codec_context.name),
        )


def _walk(container: Any, video: Any, sound: Any) -> tuple[int, dict[int, float]]:
    """Number of pictures, and where each stream ends in seconds, from the packets."""
    frames = 0
    ends: dict[int, float] = {}
    for packet in container.demux(*(stream for stream in (video, sound) if stream is not None)):
        if packet.pts is None:
            continue
        frames += packet.stream is video
        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
        ends[packet.stream.index] = max(ends.get(packet.stream.index, 0.0), end)
    return frames, ends


def read_video(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames in order as RGB uint8 [H, W, 3], upright, converted with the file's own colour matrix.

    Raises:
        LiveTalkError: the file is not a readable video.
    """
    with open_video(path) as container:
        try:
            for frame in container.decode(video=0):
                yield upright(frame)
        except av.FFmpegError as error:
            raise damaged(path, error) from error


def upright(frame: Any) -> NDArray[np.uint8]:
    """A decoded picture as players show it, RGB uint8 [H, W, 3]: telephones store theirs lying on their side."""
    pixels: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def open_video(path: str | Path) -> Any:
    """An open container with pictures in it, for whoever decodes in a way of his own; close it.

    Raises:
        LiveTalkError: the file is not a readable video.
    """
    container = open_container(path, "video", LiveTalkError, "Give a video file.", "Check that it plays.")
    if not container.streams.video:
        container.close()
        raise LiveTalkError(f"{path} holds no pictures.", "Give a video file.", file=str(path), reason="no pictures")
    return container


def damaged(path: str | Path, error: av.FFmpegError) -> LiveTalkError:
    """What to say of a video that cannot be decoded any further."""
    return LiveTalkError(f"The video {path} is damaged: {decoder_reason(error)}.", "Copy it again.", file=str(path))
