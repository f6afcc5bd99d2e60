"""Drawn people as a source of clips: as many as wanted, each with its own voice and face."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from ...config import ChunkGeometry
from ...errors import ConfigError
from ..avatars.avatar import Identity, eye_boxes, jaw_box, reference_frame, render_clip
from ..avatars.identity import require_trainable
from ..avatars.motion import motion_track
from ..speech.audio_clips import compose
from ..speech.bank import SAMPLES_PER_FRAME, SpeechBank
from .raw import Box, RawClip, clip_frames, clip_samples

_STREAM = 145


class DrawnSource:
    """`ClipSource` of drawn people, one clip each, a function of their seeds.

    Args:
        bank: What they say.
        people: How many.
        chunks: Consecutive chunks per clip.
        size: Side of the square frames.
        geometry: 25 frames of 640 samples per second, as the renderer's.
        first_seed: Of the first person.
        references: Pictures of each at rest.

    Raises:
        ConfigError: another rate, nobody asked for, or people who are kept for evaluation.
    """

    def __init__(
        self,
        bank: SpeechBank,
        people: int,
        chunks: int,
        size: int = 128,
        geometry: ChunkGeometry | None = None,
        first_seed: int = 0,
        references: int = 2,
    ) -> None:
        self.bank, self.people, self.chunks, self.size = bank, people, chunks, size
        self.geometry = geometry or ChunkGeometry()
        self.first_seed, self.references = first_seed, references
        if self.geometry.samples_per_frame != SAMPLES_PER_FRAME or people < 1 or chunks < 1:
            raise ConfigError(
                f"{people} people with {chunks} chunks at {self.geometry.fps} frames per second cannot be drawn.",
                f"At least one of each, and {SAMPLES_PER_FRAME} samples per frame.",
            )
        require_trainable(first_seed, people)

    @property
    def groups(self) -> list[str]:
        """One group per person."""
        return [f"drawn-{self.first_seed + number}" for number in range(self.people)]

    @property
    def settings(self) -> str:
        """Chunks, size and references."""
        return f"chunks={self.chunks}, size={self.size}, references={self.references}"

    def stamp(self, group: str) -> str:
        """Of what they say."""
        return hashlib.sha256(self.bank.starts.tobytes()).hexdigest()[:16]

    def clips(self, group: str) -> Iterator[RawClip]:
        """The one clip of a person."""
        seed = int(group.removeprefix("drawn-"))
        rng = np.random.default_rng([seed, _STREAM])
        identity = Identity.from_seed(seed)
        heard = clip_samples(self.chunks, self.geometry) // SAMPLES_PER_FRAME
        samples, mouth = compose(self.bank, rng, heard)
        motion = motion_track(rng, mouth, liveliness=float(rng.uniform(0.5, 1.1)))
        shown = clip_frames(self.chunks, self.geometry)
        frames = render_clip(identity, mouth[-shown:], motion[-shown:], self.size)
        pictures = np.stack([reference_frame(identity, rng, self.size) for _ in range(self.references)])
        yield RawClip(group, frames, samples, pictures, face=face_box(self.size))


def face_box(size: int) -> Box:
    """Eyes to jaw of a drawn face."""
    boxes = np.array([*eye_boxes(size), jaw_box(size)]) / size
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return float(left), float(top), float(right), float(bottom)
