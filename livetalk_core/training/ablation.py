"""The self-correction ablation: train every arm, let it speak 300 chunks, compare how it holds out.

One call does all of it and can be interrupted at any time: arms that are finished are read, the one that was cut short
goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config import StreamConfig
from ..engine import Engine, generate
from ..loading import load_model
from ..media import make_folder, panels_plot, write_atomic
from ..models.bundle import ModelBundle
from .evaluate.cases import EvaluationCase, long_case
from .evaluate.video import VideoMeasures, VideoMeter
from .evaluate.video_report import PANELS, to_json
from .recipes import change_recipe, find_recipe
from .recipes.ablation import ARMS
from .start import CHECKPOINTS, RunRequest, export_run, run_training
from .trainer.ranks import Ranks

TEACHER = "teacher, not distilled"
_TITLE = "Drift over {chunks} chunks"


@dataclass(frozen=True)
class AblationRequest:
    """What to compare.

    Attributes:
        data: Prepared data.
        out: Folder of all arms and of the result.
        model: First weights of the students; None: the embedded model.
        teacher: Model folder of the teacher; None: `model`.
        arms: Names in `recipes.ablation.ARMS`.
        seeds: One training run each.
        chunks: Length of the rollouts.
        changes: Settings changed in all arms.
    """

    data: Path
    out: Path
    model: Path | None = None
    teacher: Path | None = None
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (0, 1)
    chunks: int = 300
    changes: tuple[str, ...] = ()


def run_ablation(
    request: AblationRequest, ranks: Ranks, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Train, roll out and measure all arms; writes ablation.json, ablation.md and ablation.png.

    Returns:
        What ablation.json holds: arm -> seed -> measures.

    Raises:
        TrainingError, CheckpointError, OutputError, MissingDependencyError: see `run_training` and `long_case`.
    """
    say = tell or (lambda text: None)
    result: dict[str, Any] = {}
    case: EvaluationCase | None = None
    runs = [(TEACHER, 0), *((arm, seed) for arm in request.arms for seed in request.seeds)]
    for arm, seed in runs:
        folder = request.out / f"{arm.replace(' ', '_').replace(',', '')}-{seed}"
        measured = folder / "rollout.json"
        if not measured.is_file():
            say(f"{arm}, seed {seed}: training")
            model = request.teacher or request.model if arm == TEACHER else _trained(request, arm, seed, folder, ranks)
            say(f"{arm}, seed {seed}: {request.chunks} chunks")
            bundle = load_model(model)
            case = case or _case(bundle, request.chunks)
            make_folder(folder)
            write_atomic(measured, json.dumps(to_json(roll_out(bundle, case, request.chunks, arm))))
        result.setdefault(arm, {})[str(seed)] = json.loads(measured.read_text())
    write_atomic(request.out / "ablation.json", json.dumps(result))
    write_atomic(request.out / "ablation.md", ablation_table(result))
    _plot(result, request)
    return result


def roll_out(bundle: ModelBundle, case: EvaluationCase, chunks: int, name: str) -> VideoMeasures:
    """Let a model speak so many chunks with the engine, and measure them as they come."""
    defaults = bundle.defaults
    config = StreamConfig(
        width=defaults.width, height=defaults.height, geometry=defaults.geometry, sampler=defaults.sampler,
        correction=defaults.correction, audio=defaults.audio,
    )  # fmt: skip
    slice_frames = defaults.geometry.slice_frames
    meter = VideoMeter(slice_frames, case.reference)
    samples = case.speech.samples[: chunks * defaults.geometry.slice_samples]
    for chunk in generate(Engine(bundle), config, Image.fromarray(case.reference), [samples]):
        meter.add(chunk.frames)
    return meter.finish(name, samples)


def ablation_table(result: dict[str, Any]) -> str:
    """First and last chunks of every curve, mean over seeds, as Markdown."""
    lines = [f"| arm | seeds | {' | '.join(PANELS)} | border jump | lips |", "|" + "---|" * (len(PANELS) + 4)]
    for arm, seeds in result.items():
        cells = []
        for name in PANELS:
            first, last = np.mean([each["ends"][name] for each in seeds.values()], axis=0)
            cells.append(f"{first:.2f} → {last:.2f}")
        jump = _mean([each["border_jump"] for each in seeds.values()])
        lips = _mean([each["lips"] for each in seeds.values()])
        lines.append(f"| {arm} | {len(seeds)} | {' | '.join(cells)} | {jump:.2f} | {lips:.2f} |")
    return "\n".join(lines) + "\n"


def _trained(request: AblationRequest, arm: str, seed: int, folder: Path, ranks: Ranks) -> Path:
    """Model folder of an arm, trained as far as it is not yet."""
    model = folder / "model"
    if not model.is_dir():
        changes = [*request.changes, *ARMS[arm], f"run.seed={seed}"]
        recipe = change_recipe(find_recipe("stage2", "toy"), changes)
        resume = any((folder / CHECKPOINTS).glob("*/checkpoint.json"))
        run = RunRequest(recipe, request.model, request.data, folder, resume, request.teacher)
        run_training(run, ranks)
        export_run(folder, request.model, model)
    return model


def _case(bundle: ModelBundle, chunks: int) -> EvaluationCase:
    geometry = bundle.defaults.geometry
    return long_case(chunks * geometry.slice_frames / geometry.fps, bundle.defaults.width)


def _plot(result: dict[str, Any], request: AblationRequest) -> None:
    panels = {
        label: {
            arm: (next(iter(seeds.values()))["seconds"], np.mean([each["curves"][name] for each in seeds.values()], 0))
            for arm, seeds in result.items()
        }
        for name, label in PANELS.items()
    }
    note = f"one held-out person and all held-out voices; mean of {len(request.seeds)} training run(s) per arm"
    panels_plot(panels, request.out / "ablation.png", _TITLE.format(chunks=request.chunks), note)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
