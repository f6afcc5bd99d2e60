"""Folders of real talking videos as a source of clips."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import ChunkGeometry
from ...errors import LiveTalkError, TrainingError
from ...loading.model_files import files_stamp
from ...media import cropped_box, read_video_sound
from .background import STILL, background_similarity
from .buckets import bucket_sizes
from .raw import Box, Frames, RawClip, Skipped, clip_frames, clip_samples, source_name
from .video_frames import iter_frames, picture_size

SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
_SILENCE = 1e-3
_REFERENCE_RADIUS = 33
_LOOKS = 4
"""The background is looked at once a second, but at least so often per clip."""
_SOUND_FRAMES = 3
"""The sound of a clip may end so many frames before its pictures: most files' tracks are not equally long."""


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
    bottom of the face as shares of the upright picture's width and height, which turns on the face loss).

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
            samples = read_video_sound(path, self.geometry.sample_rate)
            if samples is None:
                yield Skipped(group, "no audio track")
            elif float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) < _SILENCE:
                yield Skipped(group, "silent")
            else:
                yield from self._cut(group, path, samples)
        except LiveTalkError as error:
            yield Skipped(group, str(error.details.get("reason", "unreadable")))

    @property
    def _clip_frames(self) -> int:
        return clip_frames(self.options.chunks, self.geometry)

    def stamp(self, group: str) -> str:
        """Of the video and of what lies beside it."""
        path = self._files[group]
        return " ".join(files_stamp(file) for file in (path, _prompt_file(path), _face_file(path)) if file.is_file())

    def _cut(self, group: str, path: Path, samples: NDArray[np.float32]) -> Iterator[RawClip | Skipped]:
        length, rate = self._clip_frames, self.geometry.samples_per_frame
        prompt, box = _prompt(path), read_face_box(path)
        rng = np.random.default_rng([self.options.seed, *group.encode()])
        face: Box | None = None
        for start, clip, around in self._windows(path):
            name = f"{group}@{start}"
            if box is not None and not start:
                face = cropped_box(box, picture_size(path), clip.shape[2], clip.shape[1])
            if (start + length - _SOUND_FRAMES) * rate > len(samples):
                yield Skipped(name, "sound ends early")
                return
            looks = clip[:: max(1, min(self.geometry.fps, length // _LOOKS))]
            if background_similarity(looks) < self.options.still_background:
                yield Skipped(name, "background moves")
                continue
            chosen = [around[int(rng.integers(len(around)))] for _ in range(self.options.references)]
            sound = _heard(samples, start, self.options.chunks, self.geometry)
            yield RawClip(name, clip, sound, np.stack(chosen), prompt, face)

    def _windows(self, path: Path) -> Iterator[tuple[int, Frames, list[Frames]]]:
        """Number of the first frame, frames [F,H,W,3], and the frames around them, of one clip after the other.

        Raises:
            TrainingError: the video is too short for one.
        """
        length = self._clip_frames
        frames = iter_frames(path, self.geometry.fps, self._sizes)
        before: list[Frames] = []
        window = list(islice(frames, length + _REFERENCE_RADIUS))
        if len(window) <= length:
            raise TrainingError(f"{path} is shorter than one clip.", reason="shorter than one clip")
        start = 0
        while len(window) >= length and len(window) + len(before) > length:
            clip, after = window[:length], window[length:]
            yield start, np.stack(clip), [*before, *after]
            before = clip[-_REFERENCE_RADIUS:]
            window = after + list(islice(frames, length))
            start += length


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
    file = _prompt_file(path)
    try:
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{file} cannot be read ({error}).", "Write it in UTF-8.", reason="bad prompt") from error


def read_face_box(path: Path) -> Box | None:
    """The face box beside a video (`VideoSource`), or None.

    Raises:
        TrainingError: it is none.
    """
    file = _face_file(path)
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


def _prompt_file(path: Path) -> Path:
    return path.with_suffix(".txt")


def _face_file(path: Path) -> Path:
    return path.with_suffix(".face.json")


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
