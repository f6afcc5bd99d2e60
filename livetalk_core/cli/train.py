"""`livetalk train`: prepare data, run a stage, list recipes, export the result."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from .console import SIGINT, SIGNAL_BASE, guarded, print_json, stderr, stdout
from .options import MODEL_HELP, Json, option
from .parsing import model_name, parse_size
from .train_progress import TrainingLine
from .work_bar import work_bar

if TYPE_CHECKING:
    from ..training.memory import MemoryPlan
    from ..training.recipes import TrainingRecipe

Stage = Literal["stage1", "stage2"]

train = typer.Typer(
    name="train",
    help="Train: prepare data, stage 1 (adaptation), stage 2 (self-correcting distillation), export.",
    no_args_is_help=True,
)

_Model = Annotated[str, option(MODEL_HELP)]
_Data = Annotated[Path, option("Folder written by 'livetalk train prepare'.")]
_Out = Annotated[Path, option("Folder of the run: checkpoints, metrics, curves, sample videos.")]
_Recipe = Annotated[str, option("See 'livetalk train recipes'.")]
_Set = Annotated[list[str] | None, option("Change a setting: run.batch=8. Repeatable.", None, True, "--set")]
_Resume = Annotated[bool, option("Continue from the newest checkpoint in --out.", None, True, "--resume")]
_Device = Annotated[str, option("auto, cpu or cuda; under torchrun one GPU per rank.")]
_DryRun = Annotated[bool, option("Show the plan of memory and stop.", None, True, "--dry-run")]


@train.command()
@guarded
def prepare(
    videos: Annotated[Path | None, typer.Argument(help="Folder of talking videos.", show_default=False)] = None,
    out: Annotated[Path, option("Folder of the prepared data.")] = Path("prepared"),
    model: _Model = "embedded",
    drawn: Annotated[int, option("Draw so many people instead of reading videos.")] = 0,
    bank: Annotated[Path | None, option("Speech of drawn people: speech_bank.safetensors.")] = None,
    first_seed: Annotated[int, option("Seed of the first drawn person.")] = 0,
    chunks: Annotated[int, option("Consecutive chunks per clip.")] = 5,
    size: Annotated[str | None, option("Area of a frame: 448x768.", default="the model's")] = None,
    still_background: Annotated[float, option("Least similarity of the background; 0 takes all.")] = 0.96,
    device: _Device = "auto",
) -> None:
    """Encode talking videos (or drawn people) once, so that training reads no pixels. Interrupted, it goes on."""
    from ..training.prepare import PrepareRequest, run_prepare

    request = PrepareRequest(
        out=out, model=model_name(model), videos=videos, drawn=drawn, bank=bank, first_seed=first_seed,
        chunks=chunks, size=parse_size(size), still_background=still_background, device=device,
    )  # fmt: skip
    with _kept_when_interrupted(), work_bar(counted=True) as tell:
        tell("loading the encoders", 0, 0)
        index = run_prepare(request, lambda done, total, name: tell(name[-40:], done, total))
    console = stdout()
    buckets: dict[str, int] = {}
    for clip in index.clips:
        buckets[clip.bucket] = buckets.get(clip.bucket, 0) + 1
    sizes = ", ".join(f"{count} of {bucket}" for bucket, count in buckets.items())
    console.print(f"{len(index.clips)} clips in {out}: {sizes or 'none'}")
    for reason, count in index.skipped.items():
        console.print(f"skipped {count:6}  {reason}")


@train.command()
@guarded
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show all settings of this recipe.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or show one."""
    import msgspec

    from ..training.recipes import RECIPES

    named = {stage: recipe for stage, known in RECIPES.items() for recipe in known.values() if recipe.name == name}
    if name is not None and not named:
        known = sorted({key for recipes in RECIPES.values() for key in recipes})
        raise ConfigError(f"There is no recipe {name!r}.", f"Known: {', '.join(known)}.")
    if as_json or name is not None:
        shown: Any = named if name is not None else RECIPES
        print_json(msgspec.to_builtins(shown))
        return
    width = max(len(key) for recipes in RECIPES.values() for key in recipes)
    for stage, known_recipes in RECIPES.items():
        for recipe in known_recipes.values():
            stdout().print(f"[bold]{stage}[/] {recipe.name:{width}} {recipe.about}")


@train.command()
@guarded
def stage1(
    data: _Data, out: _Out, recipe: _Recipe = "toy", model: _Model = "embedded", changes: _Set = None,
    resume: _Resume = False, device: _Device = "auto", dry_run: _DryRun = False,
) -> int:  # fmt: skip
    """Adapt a model: flow matching on short chunks that continue clean motion frames."""
    return _run("stage1", recipe, changes, data, out, model, None, resume, device, dry_run)


@train.command()
@guarded
def stage2(
    data: _Data, out: _Out, recipe: _Recipe = "toy", model: _Model = "embedded",
    teacher: Annotated[str | None, option("Model folder of the teacher.", default="--model")] = None,
    changes: _Set = None, resume: _Resume = False, device: _Device = "auto", dry_run: _DryRun = False,
) -> int:  # fmt: skip
    """Distil a model to few steps on its own rollouts."""
    return _run("stage2", recipe, changes, data, out, model, teacher, resume, device, dry_run)


@train.command()
@guarded
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    out: Annotated[Path, option("Model folder to make.")],
    model: _Model = "embedded",
) -> None:
    """Make a model folder of a run's newest checkpoint, in layout and number format of the one that it began with."""
    from ..training.start import export_run

    network = export_run(run, _path(model), out)
    stdout().print(f"{out}: {network} of {run}. Try it: livetalk generate --model {out} ...")


@train.command()
@guarded
def ablation(
    data: _Data, out: _Out, model: _Model = "embedded",
    teacher: Annotated[str | None, option("Model folder of the teacher.", default="--model")] = None,
    recipe: _Recipe = "toy-64",
    arms: Annotated[list[str] | None, option("Only this arm. Repeatable.", None, True, "--arm")] = None,
    seeds: Annotated[int, option("Training runs per arm.")] = 2,
    chunks: Annotated[int, option("Length of the rollouts.")] = 300,
    changes: _Set = None, device: _Device = "auto",
) -> None:  # fmt: skip
    """Compare K_max 1, 3, 5 and teacher-forced motion frames: train, roll out, measure. Interrupted, it goes on."""
    from ..training.ablation import AblationRequest, run_ablation
    from ..training.recipes.ablation import ARMS
    from ..training.trainer.ranks import join_ranks

    for arm in arms or ():
        if arm not in ARMS:
            raise ConfigError(f"There is no arm {arm!r}.", f"Known: {', '.join(ARMS)}.")
    request = AblationRequest(
        data, out, _path(model), None if teacher is None else _path(teacher), recipe,
        tuple(arms or ARMS), tuple(range(seeds)), chunks, tuple(changes or ()),
    )  # fmt: skip
    with _kept_when_interrupted(), join_ranks(device) as ranks:
        run_ablation(request, ranks, stderr().print)
    stdout().print((out / "ablation.md").read_text())
    stdout().print(f"{out / 'ablation.png'}")


def _run(
    stage: Stage, name: str, changes: list[str] | None, data: Path, out: Path, model: str, teacher: str | None,
    resume: bool, device: str, dry_run: bool,
) -> int:  # fmt: skip
    from ..training.recipes import change_recipe, find_recipe

    recipe = change_recipe(find_recipe(stage, name), changes or [])
    first = os.environ.get("RANK", "0") == "0"
    plan = _memory(recipe, _path(model), device, dry_run)
    if first:
        _show_memory(recipe, plan)
    if dry_run:
        return 0
    from ..training.start import RunRequest, run_training
    from ..training.trainer.ranks import join_ranks

    request = RunRequest(recipe, _path(model), data, out, resume, None if teacher is None else _path(teacher))
    with join_ranks(device) as ranks, TrainingLine(recipe.run.iterations, quiet=not first) as line:
        try:
            checkpoint = run_training(request, ranks, line.show)
        except KeyboardInterrupt:
            stderr().print(_interrupted(out))
            return SIGNAL_BASE + SIGINT
    if first:
        stdout().print(f"{checkpoint}\ncurves: {out / 'curves.png'}\nnext: livetalk train export {out} --out MODEL")
    return 0


def _interrupted(out: Path) -> str:
    from ..training.start import CHECKPOINTS
    from ..training.trainer.checkpoint import has_checkpoint

    if not has_checkpoint(out / CHECKPOINTS):
        return "Interrupted before the first checkpoint; the same command starts again."
    return f"Interrupted. Training since the last checkpoint in {out} is lost; --resume goes on."


@contextmanager
def _kept_when_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        stderr().print("Interrupted. What is finished is kept; the same command goes on.")
        raise typer.Exit(SIGNAL_BASE + SIGINT) from None


def _path(model: str) -> Path | None:
    name = model_name(model)
    return None if name is None else Path(name)


def _memory(recipe: TrainingRecipe, model: Path | None, device: str, dry_run: bool) -> MemoryPlan:
    """The plan for the ranks that are here, or for the recipe's where this is only a question."""
    import torch

    from ..loading import open_parts
    from ..training.memory import memory_plan, published_transformer

    published = dry_run and recipe.name == "paper-14b" and model is None
    world = recipe.world if dry_run else int(os.environ.get("WORLD_SIZE", "1"))
    if published:
        plan = memory_plan(recipe, published_transformer(), world, recipe.size)
    else:
        parts = open_parts(model)
        width = parts.vae_plan.config.base_dim
        plan = memory_plan(recipe, parts.transformer(), world, recipe.size, parts.defaults.geometry, width)
    if not dry_run and device != "cpu" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        plan.require_fits(card.total_memory, card.name)
    return plan


def _show_memory(recipe: TrainingRecipe, plan: MemoryPlan) -> None:
    from rich.table import Table

    console = stdout()
    width, height = recipe.size
    console.print(
        f"[bold]{recipe.name}[/]: {plan.parameters / 1e6:,.1f} million parameters, {plan.world} rank(s), "
        f"{width}x{height}, batch {recipe.run.batch} in {recipe.run.accumulate} part(s)"
    )
    table = Table("memory, estimated", "per rank", "host", box=None, pad_edge=False)
    for line in plan.lines:
        table.add_row(line.what, f"{line.device / 1e9:.2f} GB", f"{line.host / 1e9:.0f} GB" if line.host else "")
    host = f"{plan.host / 1e9:.0f} GB" if plan.host else ""
    table.add_row("[bold]all[/]", f"[bold]{plan.device / 1e9:.2f} GB[/]", host)
    console.print(table)
