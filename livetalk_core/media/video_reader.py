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
    with _open(path) as container:
        video = container.streams.video[0]
        sound = container.streams.audio[0] if container.streams.audio else None
        frames = 0
        ends = {video.index: 0.0}
        for packet in container.demux(*(stream for stream in (video, sound) if stream is not None)):
            if packet.pts is None:
                continue
            frames += packet.stream is video
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            ends[packet.stream.index] = max(ends.get(packet.stream.index, 0.0), end)
        return VideoInfo(
            video.codec_context.width,
            video.codec_context.height,
            Fraction(video.average_rate),
            frames,
            ends[video.index],
            None if sound is None else ends.get(sound.index, 0.0),
            str(video.codec_context.name),
            None if sound is None else str(sound.codec_context.name),
        )


def read_video(path: str | Path) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames in order as RGB uint8 [H, W, 3], converted with the file's own colour matrix.

    Raises:
        LiveTalkError: the file is not a readable video.
    """
    with _open(path) as container:
        try:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise LiveTalkError(f"The video {path} is damaged: {error.strerror}.", file=str(path)) from error


def _open(path: str | Path) -> Any:
    try:
        container = av.open(str(Path(path).absolute()), options={"protocol_whitelist": "file"})
    except (av.FFmpegError, OSError) as error:
        raise LiveTalkError(
            f"The video {path} cannot be read: {error.strerror}.", "Check the path.", file=str(path)
        ) from error
    if not container.streams.video:
        container.close()
        raise LiveTalkError(f"{path} holds no pictures.", "Give a video file.", file=str(path))
    return container
