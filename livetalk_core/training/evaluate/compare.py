"""A student of few steps against its teacher of many guided ones, on the same held-out people and voices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import ChunkGeometry
from ...errors import ConfigError
from ...loading import load_model
from ...media import make_folder, write_atomic
from ...models.bundle import ModelBundle
from .cases import EvaluationCase, make_cases
from .clip_result import ClipResult
from .comparison import Column, Comparison
from .plots import plot_mouths
from .run import Tell, check_clips, hear, judge_all, machine_facts, make_ceilings, make_gallery
from .talk import DEFAULT_SEED, OWN_MANNER, Ceiling, Manner, Talk, engine_talk, size_and_geometry

TEACHER_MANNER = Manner(steps=40, guidance=2.0)
"""Guidance as the toy recipe distils with."""

_TWO_STEPS = Manner(steps=2)


@dataclass(frozen=True)
class ComparisonConfig:
    """What to compare.

    Attributes:
        clips, seconds: How many people speak, and the longest clip; the same clips for everyone.
        seeds: Of the noise; every clip is made with each.
        student: How the student is run, one column each; the first is the one that has to pass.
        teacher: How the teacher is run.

    Raises:
        ConfigError: no clips, clips without length, or no seed.
    """

    clips: int = 8
    seconds: float = 8.0
    seeds: tuple[int, ...] = (DEFAULT_SEED, DEFAULT_SEED + 1)
    student: tuple[Manner, ...] = (OWN_MANNER, _TWO_STEPS)
    teacher: Manner = TEACHER_MANNER

    def __post_init__(self) -> None:
        check_clips(self.clips, self.seconds, self.seeds)


def compare_with_teacher(
    student: Path | str | None,
    teacher: Path | str | None,
    out: Path,
    config: ComparisonConfig | None = None,
    audio_encoder: Path | None = None,
    tell: Tell | None = None,
) -> Comparison:
    """Let both speak the same clips and write comparison.json, comparison.md and mouths.png.

    Args:
        student, teacher: Model folders; None is the one in the package.
        out: Folder for the report; made if needed.
        config: What to compare.
        audio_encoder: As for `evaluate_embedded`: the student's.
        tell: Is told of every clip.

    Raises:
        CheckpointError, DeviceError: a model cannot be loaded.
        ConfigError: the two do not make the same kind of video, or cannot be run as asked.
        MissingDependencyError: the renderer or a synthesiser is not installed.
        OutputError: a result cannot be written.
    """
    config = config or ComparisonConfig()
    bundle = load_model(student)
    other = bundle if teacher == student else load_model(teacher)
    size, geometry = size_and_geometry(bundle)
    _require_alike(bundle, other)
    talks = _talks(bundle, other, config)
    cases = make_cases(config.clips, config.seconds, size)
    ceilings = make_ceilings(cases, geometry, bundle.vae, hear(student, audio_encoder, cases))
    facts = {"student": machine_facts(bundle), "teacher": machine_facts(other)}
    return compare_talks(talks, cases, ceilings, config.seeds, geometry, out, name=bundle.name, facts=facts, tell=tell)


def compare_talks(
    talks: Mapping[str, Talk],
    cases: Sequence[EvaluationCase],
    ceilings: Sequence[Ceiling],
    seeds: Sequence[int],
    geometry: ChunkGeometry,
    out: Path,
    *,
    name: str = "student",
    facts: dict[str, Any] | None = None,
    tell: Tell | None = None,
) -> Comparison:
    """Compare anything that makes videos from cases: the first of `talks` has to reach the last; see above.

    Args:
        talks: Heading of a column -> what makes its videos.
        cases, ceilings: Clips to make, and what is known of each beforehand.
        seeds: Of the noise.
        geometry: Chunk length of all of them.
        out: Folder for the report.
        name: Name of the first in the report.
        facts: More lines for the report.
        tell: Is told of every clip.
    """
    make_folder(out)
    gallery = make_gallery(cases)
    results: dict[str, list[ClipResult]] = {heading: [] for heading in talks}
    openings: dict[str, list[NDArray[np.float32]]] = {heading: [] for heading in talks}
    for heading, talk in talks.items():
        for judged in judge_all(talk, cases, geometry, gallery, ceilings, seeds):
            results[heading].append(judged.result)
            openings[heading].append(judged.opening)
            if tell is not None:
                tell(f"{heading}: {judged.line}")
    comparison = Comparison(name, _columns(results, len(cases)), facts or {})
    write_atomic(out / "comparison.json", json.dumps(comparison.to_json(), indent=1, ensure_ascii=False))
    write_atomic(out / "comparison.md", comparison.to_markdown())
    plot_mouths(openings, cases, out / "mouths.png")
    return comparison


def _talks(bundle: ModelBundle, other: ModelBundle, config: ComparisonConfig) -> dict[str, Talk]:
    talks = {f"student, {manner.describe(bundle)}": engine_talk(bundle, manner) for manner in config.student}
    named = "teacher" if other.revision != bundle.revision else "the same weights"
    talks[f"{named}, {config.teacher.describe(other)}"] = engine_talk(other, config.teacher)
    return talks


def _require_alike(student: ModelBundle, teacher: ModelBundle) -> None:
    """Raise ConfigError where clips of the two could not be compared frame by frame."""
    ours, theirs = ((d.width, d.height, d.geometry) for d in (student.defaults, teacher.defaults))
    if ours != theirs:
        raise ConfigError(
            f"{student.name} makes {ours[0]}x{ours[1]} in chunks of {ours[2].frames} frames, {teacher.name} "
            f"{theirs[0]}x{theirs[1]} in chunks of {theirs[2].frames}.",
            "Give the teacher that this student was distilled from.", setting="teacher",
        )  # fmt: skip


def _columns(results: dict[str, list[ClipResult]], cases: int) -> tuple[Column, ...]:
    # Ceilings do not depend on the seed.
    once = next(iter(results.values()))[:cases]
    columns = [
        Column(name, group, lambda c: c.lips, lambda c: c.borders, lambda c: c.blinks.video, made=True)
        for name, group in results.items()
    ]
    columns += [
        Column("loudness alone", once, score=_louder(once)),
        Column("true video", once, lambda c: c.on_truth, lambda c: c.true_borders, lambda c: c.blinks.drawn),
        Column("true video through the VAE", once, lambda c: c.through_vae, lambda c: c.vae_borders),
        Column("audio encoder", once, lambda c: c.heard),
    ]
    return tuple(column for column in columns if column.is_known)


def _louder(clips: Sequence[ClipResult]) -> Callable[[ClipResult], float]:
    """The better of the two measures of loudness over all clips."""
    linear = np.mean([c.loudness for c in clips]) >= np.mean([c.loudness_db for c in clips])
    return lambda clip: clip.loudness if linear else clip.loudness_db
