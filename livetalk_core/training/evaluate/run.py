"""Evaluate the embedded model: `python -m livetalk_core.training.evaluate --model DIR --out DIR`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from PIL import Image

from ...config import ChunkGeometry, StreamConfig
from ...engine import Engine, generate
from ...errors import ConfigError, LiveTalkError
from ...lip_sync import mouth_opening
from ...loading import load_model
from ...media import curves_plot, loudness_envelope, mouth_plot, write_atomic
from ...models.bundle import ModelBundle
from ...models.vae import WanVideoVAE
from .cases import FPS, EvaluationCase, Frames, long_case, make_cases
from .ceilings import find_audio_encoder, heard_opening, vae_round_trip
from .lips import LipScore, lip_score, loudness_scores
from .look import Gallery, count_all_blinks, measure_borders, measure_drift
from .report import ClipResult, Evaluation
from .sheets import comparison_sheet, rollout_sheet

Talk = Callable[[EvaluationCase], Frames]
"""Makes the video of a case from its reference and its sound; uint8 [F,H,W,3], as many frames as `truth`."""

_OTHERS = range(200)
_logger = logging.getLogger("livetalk")


@dataclass(frozen=True)
class EvaluationConfig:
    """What to evaluate: how many clips, how long, how long a stream for drift (0 for none), noise seed."""

    clips: int = 8
    seconds: float = 8.0
    rollout_seconds: float = 60.0
    plots: int = 3
    seed: int = 9999


@dataclass(frozen=True)
class Judged:
    """A case, its generated video, what was measured on it, and its measured opening [F]."""

    case: EvaluationCase
    video: Frames
    result: ClipResult
    opening: Any


def evaluate_embedded(
    model: ModelBundle | str | Path | None,
    out: Path,
    config: EvaluationConfig | None = None,
    audio_encoder: Path | None = None,
) -> Evaluation:
    """Let a model speak held-out voices as held-out people, measure the videos and write the report.

    Args:
        model: A loaded model, its folder, or None for the one in the package.
        out: Folder for evaluation.json, evaluation.md and the pictures; made if needed.
        config: What to evaluate.
        audio_encoder: Folder of the audio encoder as its training exported it, for its ceiling; by default
            the model's own, if its read-outs are there.

    Raises:
        CheckpointError, DeviceError: the model cannot be loaded.
        ConfigError: the model makes no square video at 25 frames per second.
        MissingDependencyError: the renderer or a synthesiser is not installed.
        OutputError: a result cannot be written.
    """
    config = config or EvaluationConfig()
    bundle = model if isinstance(model, ModelBundle) else load_model(model)
    size, geometry = _size_and_geometry(bundle)
    cases = make_cases(config.clips, config.seconds, size)
    rollout = long_case(config.rollout_seconds, size) if config.rollout_seconds > 0 else None
    if audio_encoder is None and isinstance(model, str | Path):
        audio_encoder = find_audio_encoder(Path(model))
    heard = [] if audio_encoder is None else heard_opening(audio_encoder, [c.speech.samples for c in cases])
    facts = {
        "revision": bundle.revision, "number format": str(bundle.dtype).removeprefix("torch."),
        "device": str(bundle.device), "threads": torch.get_num_threads(), "processors": os.cpu_count(),
    }  # fmt: skip
    return evaluate_talk(
        engine_talk(bundle, config.seed), cases, rollout, out, geometry, name=bundle.name, vae=bundle.vae,
        heard=heard, plots=config.plots, facts=facts,
    )  # fmt: skip


def evaluate_talk(
    talk: Talk,
    cases: Sequence[EvaluationCase],
    rollout: EvaluationCase | None,
    out: Path,
    geometry: ChunkGeometry,
    *,
    name: str = "model",
    vae: WanVideoVAE | None = None,
    heard: Sequence[Any] = (),
    plots: int = 3,
    facts: dict[str, Any] | None = None,
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
    """
    size = cases[0].size
    gallery = Gallery([*cases, *([rollout] if rollout else [])], _OTHERS, size)
    judged = []
    for number, case in enumerate(cases):
        coded = None if vae is None else vae_round_trip(vae, case.truth, geometry)
        hearing = lip_score(heard[number], case.speech) if len(heard) else None
        judged.append(judge(talk, case, geometry, gallery, coded, hearing))
        _logger.info("%s: lip score %.3f", case.name, judged[-1].result.lips.score)
    long = None if rollout is None else judge(talk, rollout, geometry, gallery)
    everything = [each.result for each in (*judged, *([long] if long else []))]
    spent = sum(result.seconds for result in everything)
    shown = sum(result.frames for result in everything) / FPS
    facts = dict(facts or {}) | {"real-time factor, all included": round(spent / shown, 3)}
    results = tuple(each.result for each in judged)
    evaluation = Evaluation(name, results, long.result if long else None, facts)
    _write(evaluation, judged, long, out, geometry, plots)
    return evaluation


def engine_talk(bundle: ModelBundle, seed: int) -> Talk:
    """The real engine with the model's own settings, hearing the sound chunk by chunk."""
    defaults = bundle.defaults
    config = StreamConfig(
        width=defaults.width, height=defaults.height, seed=seed, geometry=defaults.geometry,
        sampler=defaults.sampler, correction=defaults.correction,
        audio=msgspec.structs.replace(defaults.audio, mode="stream"),
    )  # fmt: skip
    engine = Engine(bundle)

    def talk(case: EvaluationCase) -> Frames:
        chunks = generate(engine, config, Image.fromarray(case.reference), [case.speech.samples])
        return np.concatenate([chunk.frames for chunk in chunks])

    return talk


def judge(
    talk: Talk,
    case: EvaluationCase,
    geometry: ChunkGeometry,
    gallery: Gallery,
    coded: Frames | None = None,
    heard: LipScore | None = None,
) -> Judged:
    """Make the video of one case and measure it, and the true video after the VAE where `coded` is given."""
    started = time.monotonic()
    video = talk(case)
    seconds = time.monotonic() - started
    step = geometry.slice_frames
    opening = mouth_opening(video)
    result = ClipResult(
        case.name, case.speech.synthesiser, len(video), lip_score(opening, case.speech),
        lip_score(mouth_opening(case.truth), case.speech),
        None if coded is None else lip_score(mouth_opening(coded), case.speech), heard,
        *loudness_scores(case.speech), measure_borders(video, step), measure_borders(case.truth, step),
        None if coded is None else measure_borders(coded, step),
        measure_drift(case, video, step, gallery), count_all_blinks(case, video), seconds,
    )  # fmt: skip
    return Judged(case, video, result, opening)


def _write(
    evaluation: Evaluation,
    judged: Sequence[Judged],
    long: Judged | None,
    out: Path,
    geometry: ChunkGeometry,
    plots: int,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "evaluation.json", json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False))
    write_atomic(out / "evaluation.md", evaluation.to_markdown())
    notes = [f"lips {each.result.lips.score:.2f}\nlag {each.result.lips.lag:+d}" for each in judged]
    comparison_sheet([j.case for j in judged], [j.video for j in judged], notes, out / "clips.png")
    for number, each in enumerate(judged[:plots]):
        _plot_mouth(each, out / f"mouth_{number + 1}.png")
    if long is not None:
        rollout_sheet(long.case, long.video, geometry.slice_frames, out / "rollout.png")
        _plot_drift(long, geometry.slice_frames, out)


def _plot_mouth(each: Judged, path: Path) -> None:
    times = np.arange(len(each.opening)) / FPS
    envelope = loudness_envelope(each.case.speech.samples)
    title = f"Mouth opening, {each.case.name}"
    mouth_plot(times, each.opening, envelope, path, title, each.case.opening)


def _plot_drift(long: Judged, slice_frames: int, out: Path) -> None:
    drift = long.result.drift
    seconds = np.arange(len(drift.backdrop)) * slice_frames / FPS
    colours = {
        "background": (seconds, drift.backdrop),
        "whole frame": (seconds, drift.colour),
        "true video": (seconds, np.zeros(len(seconds))),
    }
    curves_plot(colours, out / "drift_colour.png", "Colour error, steps of 255", "seconds")
    detail = {
        "whole frame": (seconds, drift.sharpness),
        "eyes": (seconds, drift.eyes),
        "true video": (seconds, np.ones(len(seconds))),
    }
    curves_plot(detail, out / "drift_sharpness.png", "Sharpness, share of the true video's", "seconds")


def _size_and_geometry(bundle: ModelBundle) -> tuple[int, ChunkGeometry]:
    defaults = bundle.defaults
    if defaults.width != defaults.height or defaults.geometry.fps != FPS:
        raise ConfigError(
            f"{bundle.name} makes {defaults.width}x{defaults.height} at {defaults.geometry.fps} fps.",
            f"Only square video at {FPS} fps can be compared with the renderer's.",
        )
    return defaults.width, defaults.geometry


def main(arguments: list[str] | None = None) -> None:
    """Evaluate a model folder (without --model the one in the package) and log the report."""
    defaults = EvaluationConfig()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="model folder; default: the embedded model")
    parser.add_argument("--out", type=Path, required=True, help="folder for report and pictures")
    parser.add_argument("--clips", type=int, default=defaults.clips)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="longest clip")
    parser.add_argument("--rollout-seconds", type=float, default=defaults.rollout_seconds, help="0: none")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--audio-encoder", type=Path, default=None, help="as its training exported it")
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    options = parser.parse_args(arguments)
    _logger.setLevel(logging.INFO)
    _logger.addHandler(logging.StreamHandler(sys.stderr))
    if options.threads:
        torch.set_num_threads(options.threads)
    config = EvaluationConfig(options.clips, options.seconds, options.rollout_seconds, seed=options.seed)
    try:
        evaluation = evaluate_embedded(options.model, options.out, config, options.audio_encoder)
    except LiveTalkError as error:
        _logger.error("%s", error)
        raise SystemExit(1) from error
    _logger.info("%s", evaluation.to_markdown())
