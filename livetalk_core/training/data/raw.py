"""A clip before it is encoded, and what a source of clips is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...config import ChunkGeometry

Frames = NDArray[np.uint8]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of width and height."""


@dataclass(frozen=True)
class RawClip:
    """Consecutive chunks of one talking person.

    Attributes:
        name: Unique in the data set.
        frames: uint8 [F,H,W,3] at the geometry's rate; F = `clip_frames(chunks)`.
        samples: float32 [S] at the geometry's rate, S = `clip_samples(chunks)`: the sound of the frames and, before
            it, what the window of the first chunk hears.
        references: uint8 [R,H,W,3]: the same person in neighbouring windows, never in this one.
        prompt: What the text encoder is told.
        face: Where the face is, if known.
    """

    name: str
    frames: Frames
    samples: NDArray[np.float32]
    references: Frames
    prompt: str = ""
    face: Box | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.frames.shape[2], self.frames.shape[1]


@dataclass(frozen=True)
class Skipped:
    """Something that gave no clip, and why: `reason` is short, so that reasons can be counted."""

    name: str
    reason: str


class ClipSource(Protocol):
    """Where clips come from. Groups (files, people) can be left out when they are done already."""

    @property
    def groups(self) -> list[str]:
        """Names of the groups, always the same and in the same order."""
        ...

    @property
    def settings(self) -> str:
        """What decides its clips besides the groups; a set of other settings is not continued."""
        ...

    def stamp(self, group: str) -> str:
        """What changes when that which the clips of a group are made from does: then they are made again."""
        ...

    def clips(self, group: str) -> Iterator[RawClip | Skipped]:
        """The clips of a group."""
        ...


def clip_frames(chunks: int, geometry: ChunkGeometry) -> int:
    """Video frames of so many consecutive chunks."""
    return geometry.motion_frames + chunks * geometry.slice_frames


def clip_samples(chunks: int, geometry: ChunkGeometry) -> int:
    """Audio samples that these chunks hear, the first one's window included."""
    return geometry.window_samples + (chunks - 1) * geometry.slice_samples


def source_name(path: Path, root: Path) -> str:
    """A file's name within its folder, with forward slashes; bytes that are no UTF-8 are written out."""
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()
