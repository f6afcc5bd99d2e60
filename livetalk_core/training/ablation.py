"""The self-correction ablation: train every arm, let it speak 300 chunks, compare how it holds out.

One call does all of it and can be interrupted at any time: arms that are finished are read, the one that was cut short
goes on from its last checkpoint. What is known so far is reported after every rollout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..config import StreamConfig, require
from ..engine import Engine, generate
from ..loading import load_model, open_parts
from ..media import AtomicFile, make_folder, write_atomic
from ..models.bundle import ModelBundle
from .ablation_report import SHOWN, Result, lip_ends, write_report
from .data.prepared import PreparedSet
from .evaluate.cases import EvaluationCase, long_case
from .evaluate.video import VideoMeter
from .evaluate.video_report import to_json
from .recipes import Stage2Config, TrainingRecipe, change_recipe, find_recipe
from .recipes.ablation import ARMS, CLAIMS, FIRST, TEACHER
from .start import CHECKPOINTS, RunRequest, export_run, run_training
from .trainer.checkpoint import has_checkpoint
from .trainer.ranks import Ranks
from .trainer.same_settings import require_same

MEASURED, FRAMES, SETTINGS = "rollout.json", "rollout.png", "settings.json"


@dataclass(frozen=True)
class AblationRequest:
    """What to compare.

    Attributes:
        data: Prepared data.
        out: Folder of all arms and of the result.
        model: First weights of the students; None: the embedded model.
        teacher: Model folder of the teacher; None: `model`.
        recipe: Name of the stage 2 recipe that the arms change; its size and colour match are those of the rollouts.
        arms: Names in `recipes.ablation.ARMS`.
        seeds: One training run each.
        chunks: Length of the rollouts.
        changes: Settings changed in all arms.

    Raises:
        ConfigError: no seed, or rollouts without a chunk.
    """

    data: Path
    out: Path
    model: Path | None = None
    teacher: Path | None = None
    recipe: str = "toy-64"
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (0, 1)
    chunks: int = 300
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(bool(self.seeds), "seeds", len(self.seeds), "1 or more")
        require(self.chunks >= 1, "chunks", self.chunks, "1 or more")

    def folder(self, arm: str, seed: int) -> Path:
        """Where a run keeps its checkpoints, its model and what was measured."""
        return self.out / f"{arm.replace(' ', '_')}-{seed}"

    def runs(self) -> Iterator[tuple[str, int]]:
        """Arm and seed of every run in order: what is not trained, the paper's arms seed by seed, then the claims'."""
        yield FIRST, 0
        if self.teacher is not None:
            yield TEACHER, 0
        for wanted in (False, True):
            for seed in self.seeds:
                yield from ((arm, seed) for arm in self.arms if (arm in CLAIMS) == wanted)


def run_ablation(request: AblationRequest, ranks: Ranks, tell: Callable[[str], None] | None = None) -> Result:
    """Train, roll out and measure all arms; see `write_report` for the files.

    Raises:
        TrainingError, CheckpointError, OutputError, MissingDependencyError: see `run_training` and `long_case`.
    """
    say = tell or (lambda text: None)
    base = change_recipe(find_recipe("stage2", request.recipe), request.changes)
    result: Result = {}
    case: EvaluationCase | None = None
    _require_same_settings(request)
    for arm, seed in request.runs():
        folder = request.folder(arm, seed)
        if not _is_measured(folder, request.chunks):
            model = _model(request, arm, seed, folder, ranks, say)
            say(f"{arm}, seed {seed}: {request.chunks} chunks")
            bundle = load_model(model)
            config = rollout_config(bundle, base)
            case = case or long_case(request.chunks * config.geometry.slice_frames / config.geometry.fps, config.width)
            roll_out(bundle, config, case, request.chunks, folder, arm)
        result.setdefault(arm, {})[str(seed)] = json.loads((folder / MEASURED).read_text())
        strips = {name: request.folder(name, 0) / FRAMES for name in result}
        write_report(result, strips, request.out, request.chunks)
    return result


def _require_same_settings(request: AblationRequest) -> None:
    """Write down what every run is made with, before any work; refuse runs of other settings.

    Raises:
        TrainingError, CheckpointError: data or a model that cannot be read, or runs of other settings.
    """
    teacher = request.model if request.teacher is None else request.teacher
    common = {"data": PreparedSet(request.data).describe()} | {
        name: open_parts(model).describe() for name, model in (("model", request.model), ("teacher", teacher))
    }
    for arm, seed in request.runs():
        path = request.folder(arm, seed) / SETTINGS
        facts = common | {"recipe": msgspec.to_builtins(_recipe(request, arm, seed))}
        if path.is_file():
            require_same(path, json.loads(path.read_text()), facts)
        else:
            make_folder(path.parent)
            write_atomic(path, json.dumps(facts, indent=1))


def _recipe(request: AblationRequest, arm: str, seed: int) -> TrainingRecipe:
    changes = [*request.changes, *ARMS.get(arm, ()), f"run.seed={seed}"]
    return change_recipe(find_recipe("stage2", request.recipe), changes)


def _is_measured(folder: Path, chunks: int) -> bool:
    """Whether a rollout of so many chunks is there."""
    path = folder / MEASURED
    return path.is_file() and len(json.loads(path.read_text())["seconds"]) == chunks


def rollout_config(bundle: ModelBundle, recipe: TrainingRecipe) -> StreamConfig:
    """A stream as the students of a recipe roll out in training: nothing else keeps the pictures as they are."""
    defaults = bundle.defaults
    assert isinstance(recipe.method, Stage2Config)
    rollout = recipe.method.rollout
    correction = msgspec.structs.replace(
        defaults.correction, color_strength=rollout.color_strength, lookback=0, border_fade=0
    )
    width, height = recipe.size
    return defaults.stream(width=width, height=height, sampler=rollout.sampler, correction=correction)


def roll_out(
    bundle: ModelBundle, config: StreamConfig, case: EvaluationCase, chunks: int, folder: Path, name: str
) -> None:
    """Let a model speak so many chunks with the engine, measure them as they come, keep a few frames.

    Raises:
        OutputError: the folder cannot be written.
    """
    geometry = config.geometry
    meter = VideoMeter(geometry.slice_frames, case.reference)
    samples = case.speech.samples[: chunks * geometry.slice_samples]
    shown = {round(share * (chunks - 1)) for share in SHOWN}
    kept: list[NDArray[np.uint8]] = [case.reference]
    stream = generate(Engine(bundle), config, Image.fromarray(case.reference), [samples])
    for number, chunk in enumerate(stream):
        meter.add(chunk.frames)
        if number in shown:
            first = number * geometry.slice_frames
            kept.append(chunk.frames[int(case.opening[first : first + len(chunk.frames)].argmax())])
    measures = meter.finish(name, samples)
    make_folder(folder)
    with AtomicFile(folder / FRAMES) as file:
        Image.fromarray(np.concatenate(kept, axis=1)).save(file.temporary, format="PNG")
    found = to_json(measures)
    found["ends"]["lips"] = lip_ends(measures.opening, case.opening, geometry.slice_frames)
    write_atomic(folder / MEASURED, json.dumps(found))


def _model(
    request: AblationRequest, arm: str, seed: int, folder: Path, ranks: Ranks, say: Callable[[str], None]
) -> Path | None:
    """Model folder of an arm, trained as far as it is not yet."""
    if arm not in ARMS:
        return request.teacher if arm == TEACHER else request.model
    model = folder / "model"
    if not model.is_dir():
        say(f"{arm}, seed {seed}: training")
        recipe, resume = _recipe(request, arm, seed), has_checkpoint(folder / CHECKPOINTS)
        run_training(RunRequest(recipe, request.model, request.data, folder, resume, request.teacher), ranks)
        export_run(folder, request.model, model)
    return model
