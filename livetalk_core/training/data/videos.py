"""Folders of real talking videos as a source of clips."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ...config import ChunkGeometry
from ...errors import AudioError, LiveTalkError, TrainingError
from ...media import cover_and_crop, open_sound
from ...media.video_reader import open_video
from .background import STILL, background_similarity
from .buckets import Size, bucket_sizes, nearest_bucket
from .raw import Box, Frames, RawClip, Skipped, clip_frames, clip_samples, source_name

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
_SILENCE = 1e-3
_REFERENCE_RADIUS = 33
_LOOKS = 4
"""The background is looked at once a second, but at least so often per clip."""


@dataclass(frozen=True)
class VideoOptions:
    """How videos become clips.

    Attributes:
        area: Pixels of a training frame; the sizes of the buckets follow from it.
        chunks: Consecutive chunks per clip.
        references: Reference pictures per clip.
        still_background: Least similarity of the background over a clip; 0 takes all.
        seed: Of the choice of references.
    """

    area: int = 448 * 768
    chunks: int = 5
    references: int = 2
    still_background: float = STILL
    seed: int = 0


class VideoSource:
    """`ClipSource` of the videos in a folder and the folders in it, one group per file.

    Beside `talk.mp4` may lie `talk.txt` (what the text encoder is told) and `talk.face.json` (left, top, right,
    bottom of the face as shares of width and height, which turns on the face loss).

    Raises:
        TrainingError: no such folder, or no video in it.
    """

    def __init__(self, folder: Path, geometry: ChunkGeometry, options: VideoOptions | None = None) -> None:
        self.folder, self.geometry, self.options = folder, geometry, options or VideoOptions()
        if not folder.is_dir():
            raise TrainingError(f"{folder} is not a folder.", "Give the folder that holds the videos.")
        self._files = {source_name(path, folder): path for path in sorted(folder.rglob("*")) if _is_video(path)}
        if not self._files:
            raise TrainingError(f"{folder} holds no videos.", f"Looked for {', '.join(SUFFIXES)}.")
        self._sizes = bucket_sizes(self.options.area)

    @property
    def groups(self) -> list[str]:
        """File names within the folder."""
        return list(self._files)

    @property
    def settings(self) -> str:
        """Its options."""
        return str(self.options)

    def clips(self, group: str) -> Iterator[RawClip | Skipped]:
        """Clips that follow each other without gaps, as many as the video holds."""
        path = self._files[group]
        try:
            samples = _read_sound(path, self.geometry.sample_rate)
            if samples is None:
                yield Skipped(group, "no audio track" if _readable(path) else "unreadable")
            elif float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < _SILENCE:
                yield Skipped(group, "silent")
            else:
                yield from self._cut(group, path, samples)
        except LiveTalkError as error:
            yield Skipped(group, str(error.details.get("reason", "unreadable")))

    def _cut(self, group: str, path: Path, samples: NDArray[np.float32]) -> Iterator[RawClip | Skipped]:
        length = clip_frames(self.options.chunks, self.geometry)
        prompt, face = _prompt(path), read_face_box(path)
        frames = iter_frames(path, self.geometry.fps, self._sizes)
        rng = np.random.default_rng([self.options.seed, *group.encode()])
        before: list[Frames] = []
        window = list(islice(frames, length + _REFERENCE_RADIUS))
        if len(window) <= length:
            yield Skipped(group, "shorter than one clip")
        start = 0
        while len(window) >= length and len(window) + len(before) > length:
            clip, after = window[:length], window[length:]
            name = f"{group}@{start}"
            looks = clip[:: max(1, min(self.geometry.fps, length // _LOOKS))]
            if background_similarity(looks) < self.options.still_background:
                yield Skipped(name, "background moves")
            else:
                around = [*before, *after]
                chosen = [around[int(rng.integers(len(around)))] for _ in range(self.options.references)]
                sound = _heard(samples, start, self.options.chunks, self.geometry)
                yield RawClip(name, np.stack(clip), sound, np.stack(chosen), prompt, face)
            before = clip[-_REFERENCE_RADIUS:]
            window = after + list(islice(frames, length))
            start += length


def iter_frames(path: Path, fps: int, sizes: list[Size]) -> Iterator[Frames]:
    """A video's frames at a constant rate, covering and cropped to the nearest bucket: uint8 [H,W,3] each.

    Output frame i shows the picture that is on screen at time i / fps. Damage later in the file ends it there.

    Raises:
        LiveTalkError: the file cannot be read, or holds no pictures.
    """
    last: Frames | None = None
    made = 0
    try:
        with open_video(path) as container:
            for frame in container.decode(video=0):
                time = Fraction(frame.pts or 0) * frame.time_base
                if last is None:
                    first_time, size = time, nearest_bucket(frame.width, frame.height, sizes)
                due = int((time - first_time) * fps)
                while last is not None and made < due:
                    yield last
                    made += 1
                last = cover_and_crop(frame.to_image(), *size)
    except (av.FFmpegError, OSError) as error:
        if last is None:
            raise TrainingError(f"{path} cannot be decoded ({error}).", reason="unreadable") from error
    if last is None:
        raise TrainingError(f"{path} holds no pictures.", reason="no pictures")
    yield last


def _read_sound(path: Path, sample_rate: int) -> NDArray[np.float32] | None:
    """The whole sound, or None where there is no audio track."""
    try:
        with open_sound(path, sample_rate) as reader:
            blocks = list(reader)
    except AudioError:
        return None
    return np.concatenate(blocks) if blocks else None


def _heard(
    samples: NDArray[np.float32], start: int, chunks: int, geometry: ChunkGeometry
) -> NDArray[np.float32]:
    """What the chunks of a clip from frame `start` on hear; zeros before and after the sound."""
    first = (start + geometry.frames - geometry.window_frames) * geometry.samples_per_frame
    stop = first + clip_samples(chunks, geometry)
    part = samples[max(0, first) : max(0, stop)]
    before = max(0, -first)
    return np.pad(part, (before, stop - first - before - len(part)))


def _prompt(path: Path) -> str:
    file = path.with_suffix(".txt")
    try:
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} cannot be read ({error}).", "Write it in UTF-8.", reason="bad prompt") from error


def read_face_box(path: Path) -> Box | None:
    """The face box beside a video (`VideoSource`), or None.

    Raises:
        TrainingError: it is none.
    """
    file = path.with_suffix(".face.json")
    if not file.is_file():
        return None
    try:
        values: Any = json.loads(file.read_text())
        left, top, right, bottom = (float(value) for value in values)
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{file} is not a face box ({error}).", "Write [left, top, right, bottom] in 0..1.",
                            reason="bad face box") from error  # fmt: skip
    if not 0 <= left < right <= 1 or not 0 <= top < bottom <= 1:
        hint = "Write [left, top, right, bottom] in 0..1."
        raise TrainingError(f"{file} holds {values}.", hint, reason="bad face box")
    return left, top, right, bottom


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")


def _readable(path: Path) -> bool:
    """Whether the container itself opens and holds pictures."""
    try:
        open_video(path).close()
    except LiveTalkError:
        return False
    return True
