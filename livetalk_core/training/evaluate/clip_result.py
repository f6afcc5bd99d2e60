"""Everything measured on one clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .lips import LipScore
from .look import Blinks, Borders, Drift


@dataclass(frozen=True)
class ClipResult:
    """Everything measured on one clip.

    Attributes:
        name, synthesiser: The voice.
        seed: Of the noise.
        frames: Length.
        lips: Of the generated video.
        on_truth: Of the true video: the ceiling of the measure.
        through_vae: Of the true video after the VAE; None without a VAE.
        heard: Of the audio encoder's own reading; None without its read-outs.
        loudness, loudness_db: What following the level alone would score.
        borders, true_borders, vae_borders: Jumps at chunk borders: generated, true, and true after the VAE.
        drift: Look per chunk.
        blinks: Per minute.
        seconds: Time that generating took.
    """

    name: str
    synthesiser: str
    seed: int
    frames: int
    lips: LipScore
    on_truth: LipScore
    through_vae: LipScore | None
    heard: LipScore | None
    loudness: float
    loudness_db: float
    borders: Borders
    true_borders: Borders
    vae_borders: Borders | None
    drift: Drift
    blinks: Blinks
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the means over the first and the last chunks."""
        plain = asdict(self)
        plain["drift"] = {name: values.tolist() for name, values in plain["drift"].items()}
        plain["drift_ends"] = self.drift.ends()
        return plain


def grouped(clips: Sequence[ClipResult], key: Callable[[ClipResult], str]) -> dict[str, list[ClipResult]]:
    """Clips by a key of theirs, in order of first appearance."""
    groups: dict[str, list[ClipResult]] = {}
    for clip in clips:
        groups.setdefault(key(clip), []).append(clip)
    return groups
