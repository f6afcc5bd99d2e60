"""Evaluate one model on short clips and a long stream: figures, tables and pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...config import ChunkGeometry
from ...errors import ConfigError
from ...loading import load_model
from ...media import make_folder, write_atomic
from ...models.bundle import ModelBundle
from ...models.vae import WanVideoVAE
from .cases import FPS, EvaluationCase, long_case, make_cases
from .ceilings import find_audio_encoder, heard_opening, vae_round_trip
from .clip_result import ClipResult
from .lips import lip_score
from .look import Gallery
from .plots import plot_drift, plot_mouth
from .report import Evaluation
from .sheets import comparison_sheet, rollout_sheet
from .talk import DEFAULT_SEED, OWN_MANNER, Ceiling, Judged, Manner, Talk, engine_talk, judge, size_and_geometry

Tell = Callable[[str], None]
"""Is told in a line what has been done."""

_OTHERS = range(200)


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate.

    Attributes:
        clips: How many people speak.
        seconds: Longest clip.
        rollout_seconds: Length of one long stream for drift; 0 for none.
        plots: How many clips get a plot of their mouth opening.
        seeds: Of the noise; every clip is made with each, the long stream with the first.
        manner: How the model is run.

    Raises:
        ConfigError: clips without length, or no seed.
    """

    clips: int = 8
    seconds: float = 8.0
    rollout_seconds: float = 60.0
    plots: int = 3
    seeds: tuple[int, ...] = (DEFAULT_SEED,)
    manner: Manner = OWN_MANNER

    def __post_init__(self) -> None:
        check_clips(self.clips, self.seconds, self.seeds)


def check_clips(clips: int, seconds: float, seeds: Sequence[int]) -> None:
    """Raise ConfigError for no clips, clips without length, or no seed."""
    if clips < 1:
        raise ConfigError(f"{clips} clips were asked for.", "Allowed: 1 or more.", setting="clips")
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"Clips of {seconds:g} s were asked for.", "Allowed: above 0.", setting="seconds")
    if not seeds:
        raise ConfigError("No seed was asked for.", "Allowed: 1 or more.", setting="seeds")


def evaluate_embedded(
    model: ModelBundle | str | Path | None,
    out: Path,
    config: EvaluationConfig | None = None,
    audio_encoder: Path | None = None,
    tell: Tell | None = None,
) -> Evaluation:
    """Let a model speak held-out voices as held-out people, measure the videos and write the report.

    Args:
        model: A loaded model, its folder, or None for the one in the package.
        out: Folder for evaluation.json, evaluation.md and the pictures; made if needed.
        config: What to evaluate.
        audio_encoder: Folder of the audio encoder as its training exported it, for its ceiling; by default
            the model's own, if its read-outs are there.
        tell: Is told of every clip.

    Raises:
        CheckpointError, DeviceError: the model cannot be loaded.
        ConfigError: the model makes no square video at 25 frames per second, or cannot be run as asked.
        MissingDependencyError: the renderer or a synthesiser is not installed.
        OutputError: a result cannot be written.
    """
    config = config or EvaluationConfig()
    bundle = model if isinstance(model, ModelBundle) else load_model(model)
    size, geometry = size_and_geometry(bundle)
    talk = engine_talk(bundle, config.manner)
    cases = make_cases(config.clips, config.seconds, size)
    rollout = long_case(config.rollout_seconds, size) if config.rollout_seconds > 0 else None
    return evaluate_talk(
        talk, cases, rollout, out, geometry, name=f"{bundle.name}, {config.manner.describe(bundle)}", vae=bundle.vae,
        heard=hear(model, audio_encoder, cases), plots=config.plots, facts=machine_facts(bundle), seeds=config.seeds,
        tell=tell,
    )  # fmt: skip


def hear(
    model: ModelBundle | str | Path | None, audio_encoder: Path | None, cases: Sequence[EvaluationCase]
) -> list[NDArray[np.float32]]:
    """Opening [F] that the audio encoder hears in each case; nothing where its read-outs are not known."""
    if audio_encoder is None and isinstance(model, str | Path):
        audio_encoder = find_audio_encoder(Path(model))
    return [] if audio_encoder is None else heard_opening(audio_encoder, [case.speech.samples for case in cases])


def machine_facts(bundle: ModelBundle) -> dict[str, Any]:
    """What model and machine figures come from."""
    return {
        "revision": bundle.revision[:12], "number format": str(bundle.dtype).removeprefix("torch."),
        "device": str(bundle.device), "threads": torch.get_num_threads(), "processors": os.cpu_count(),
    }  # fmt: skip


def evaluate_talk(
    talk: Talk,
    cases: Sequence[EvaluationCase],
    rollout: EvaluationCase | None,
    out: Path,
    geometry: ChunkGeometry,
    *,
    name: str = "model",
    vae: WanVideoVAE | None = None,
    heard: Sequence[NDArray[np.float32]] = (),
    plots: int = 3,
    facts: dict[str, Any] | None = None,
    seeds: Sequence[int] = (DEFAULT_SEED,),
    tell: Tell | None = None,
) -> Evaluation:
    """Evaluate anything that makes videos from cases; see `evaluate_embedded`.

    Args:
        talk: Makes the videos.
        cases: Clips to make.
        rollout: Long clip for drift, or None.
        out: Folder for the report.
        geometry: Chunk length of `talk`.
        name: Name of the model in the report.
        vae: For the ceiling of the VAE.
        heard: For each case the opening [F] that the audio encoder hears, or nothing.
        plots: How many clips get a plot of their mouth opening.
        facts: More lines for the report.
        seeds: Of the noise.
        tell: Is told of every clip.
    """
    make_folder(out)
    gallery = make_gallery([*cases, *([rollout] if rollout else [])])
    ceilings = make_ceilings(cases, geometry, vae, heard)
    results: list[ClipResult] = []
    shown: list[Judged] = []
    for judged in judge_all(talk, cases, geometry, gallery, ceilings, seeds):
        results.append(judged.result)
        shown += [judged] if len(shown) < len(cases) else []
        if tell is not None:
            tell(judged.line)
    long = None if rollout is None else judge(talk, rollout, geometry, gallery, seed=seeds[0])
    evaluation = Evaluation(name, tuple(results), long.result if long else None, dict(facts or {}))
    spent = sum(result.seconds for result in evaluation.videos)
    lasting = sum(result.frames for result in evaluation.videos) / FPS
    evaluation.facts["real-time factor, all included"] = round(spent / lasting, 3)
    _write(evaluation, shown, long, out, geometry, plots)
    return evaluation


def judge_all(
    talk: Talk,
    cases: Sequence[EvaluationCase],
    geometry: ChunkGeometry,
    gallery: Gallery,
    ceilings: Sequence[Ceiling],
    seeds: Sequence[int],
) -> Iterator[Judged]:
    """All cases with the first seed, then with the next."""
    for seed in seeds:
        for case, ceiling in zip(cases, ceilings, strict=True):
            yield judge(talk, case, geometry, gallery, ceiling, seed)


def make_gallery(cases: Sequence[EvaluationCase]) -> Gallery:
    """The cases' people among two hundred others."""
    return Gallery(cases, _OTHERS, cases[0].size)


def make_ceilings(
    cases: Sequence[EvaluationCase],
    geometry: ChunkGeometry,
    vae: WanVideoVAE | None,
    heard: Sequence[NDArray[np.float32]],
) -> list[Ceiling]:
    """The ceilings of each case, as far as VAE and audio encoder are given."""
    return [
        Ceiling(
            None if vae is None else vae_round_trip(vae, case.truth, geometry),
            lip_score(heard[number], case.speech) if len(heard) else None,
        )
        for number, case in enumerate(cases)
    ]


def _write(
    evaluation: Evaluation,
    judged: Sequence[Judged],
    long: Judged | None,
    out: Path,
    geometry: ChunkGeometry,
    plots: int,
) -> None:
    write_atomic(out / "evaluation.json", json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False))
    write_atomic(out / "evaluation.md", evaluation.to_markdown())
    notes = [f"lips {each.result.lips.score:.2f}\nlag {each.result.lips.lag:+d}" for each in judged]
    comparison_sheet([j.case for j in judged], [j.video for j in judged], notes, out / "clips.png")
    for number, each in enumerate(judged[:plots]):
        plot_mouth(each, out / f"mouth_{number + 1}.png")
    if long is not None:
        rollout_sheet(long.case, long.video, geometry.slice_frames, out / "rollout.png")
        plot_drift(long, geometry.slice_frames, out)
