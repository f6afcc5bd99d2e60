"""`livetalk evaluate`: how well videos, or a model, do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ConfigError
from .console import guarded, print_json, stdout
from .options import Json
from .parsing import model_name

_LEGEND = (
    "[dim]First→last chunks (30, or a third). Lips: mouth against loudness (lag in frames), drawn faces only.\n"
    "Borders: change there over change inside chunks. Colour: 3 is visible. Likeness: 1 is the same.[/]"
)


@guarded
def evaluate(
    targets: Annotated[list[str], typer.Argument(help="Video files, or one model: 'embedded' or its folder.")],
    reference: Annotated[
        Path | None, typer.Option(help="Picture that the videos were made from.", show_default="first frame")
    ] = None,
    slice_frames: Annotated[int, typer.Option(help="New frames per chunk, to know where borders are.")] = 28,
    out: Annotated[Path | None, typer.Option(help="Folder for JSON and pictures.", show_default=False)] = None,
    clips: Annotated[int, typer.Option(help="Model: people who speak.")] = 8,
    seconds: Annotated[float, typer.Option(help="Model: longest clip.")] = 8.0,
    rollout_seconds: Annotated[float, typer.Option(help="Model: one long stream for drift; 0: none.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Measure lip sync, likeness, colour drift, sharpness, flicker and jumps at chunk borders over time."""
    models = [target for target in targets if target == "embedded" or Path(target).is_dir()]
    if models and len(targets) > 1:
        raise ConfigError(f"{models[0]} is a model; it is evaluated alone.", "Give videos, or one model.")
    if models:
        _model(models[0], out, clips, seconds, rollout_seconds, as_json)
    else:
        _videos([Path(target) for target in targets], reference, slice_frames, out, as_json)


def _videos(paths: list[Path], reference: Path | None, slice_frames: int, out: Path | None, as_json: bool) -> None:
    if slice_frames < 3:
        raise ConfigError(f"--slice-frames is {slice_frames}.", "Give 3 or more.")
    from ..training.evaluate.video import measure_video
    from ..training.evaluate.video_report import TABLE_HEAD, plot_videos, table_rows, to_json

    picture = None if reference is None else _picture(reference)
    names = [path.name for path in paths]
    shown = [str(path) if names.count(path.name) > 1 else path.name for path in paths]
    measures = [measure_video(path, slice_frames, picture, name) for path, name in zip(paths, shown, strict=True)]
    result: dict[str, Any] = {"videos": [to_json(each) for each in measures]}
    if out is not None:
        from ..media import write_atomic

        out.mkdir(parents=True, exist_ok=True)
        write_atomic(out / "videos.json", json.dumps(result, indent=1))
        plot_videos(measures, out / "videos.png", "Videos over time")
    if as_json:
        print_json(result)
        return
    from rich.table import Table

    table = Table(*TABLE_HEAD, box=None, pad_edge=False)
    for row in table_rows(measures):
        table.add_row(*row)
    console = stdout()
    console.print(table)
    console.print(_LEGEND)
    if out is not None:
        console.print(f"{out / 'videos.png'}")


def _picture(path: Path) -> Any:
    import numpy as np

    from ..media import load_picture

    return np.asarray(load_picture(path).convert("RGB"))


def _model(model: str, out: Path | None, clips: int, seconds: float, rollout_seconds: float, as_json: bool) -> None:
    from ..training.evaluate.run import EvaluationConfig, evaluate_embedded

    config = EvaluationConfig(clips, seconds, rollout_seconds)
    folder = out or Path("evaluation")
    evaluation = evaluate_embedded(model_name(model), folder, config)
    if as_json:
        print_json(evaluation.to_json())
    else:
        stdout().print(evaluation.to_markdown())
        stdout().print(f"{folder}")
