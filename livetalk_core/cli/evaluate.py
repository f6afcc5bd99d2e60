"""`livetalk evaluate`: how well videos, or a model, do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from ..errors import ConfigError
from .console import guarded, print_json, stderr, stdout
from .groups import grouped
from .options import STEPS_HELP, Json, option
from .parsing import model_name

if TYPE_CHECKING:
    from ..lip_sync.syncnet import SyncScore

_LEGEND = (
    "[dim]First to last chunks (30, or a third). Lips: mouth against loudness (lag in frames), drawn faces only.\n"
    "Borders: change there over change inside chunks. Colour: 3 is visible. Likeness: 1 is the same.[/]"
)
_VIDEOS, _MODEL, _TEACHER, _STREAMS = "Videos", "A model", "A model against its teacher", "A model over minutes"
_COMPARED = ("clips", "seconds", "seeds", "steps", "guidance", "audio_encoder")
"""What a comparison with a teacher takes."""


@dataclass(frozen=True)
class ClipOptions:
    """What a model speaks, and how it is run."""

    clips: Annotated[int, option("People who speak.", _MODEL)] = 8
    seconds: Annotated[float, option("Longest clip.", _MODEL)] = 8.0
    seeds: Annotated[int | None, option("So many seeds, from 9999.", _MODEL, "1; with --teacher 2")] = None
    steps: Annotated[int | None, option(STEPS_HELP, _MODEL, "the model's")] = None
    guidance: Annotated[float, option("How much speech is exaggerated; 1: not.", _MODEL)] = 1.0
    rollout_seconds: Annotated[float, option("One longer stream for drift; 0: none.", _MODEL)] = 60.0
    audio_encoder: Annotated[
        Path | None, option("Folder that audio training exported, to show what it hears.", _MODEL, False)
    ] = None


@dataclass(frozen=True)
class TeacherOptions:
    """Whom a student is compared with."""

    teacher: Annotated[str | None, option("Compare with this model at many guided steps.", _TEACHER, False)] = None
    teacher_steps: Annotated[int, option("Its sampling steps.", _TEACHER)] = 40
    teacher_guidance: Annotated[float, option("Its guidance.", _TEACHER)] = 2.0


@dataclass(frozen=True)
class StreamsOptions:
    """Long streams."""

    streams: Annotated[int, option("Let so many people speak for minutes instead of clips.", _STREAMS)] = 0
    stream_seconds: Annotated[float, option("Each for so long.", _STREAMS)] = 300.0


@dataclass(frozen=True)
class VideoOptions:
    """How videos are judged."""

    reference: Annotated[
        Path | None, option("Picture that the videos were made from.", _VIDEOS, "first frame")
    ] = None
    slice_frames: Annotated[int, option("New frames per chunk, to know where borders are.", _VIDEOS)] = 28
    first_frames: Annotated[
        int | None, option("New frames of the first chunk; of --mode whole all 33.", _VIDEOS, "as --slice-frames")
    ] = None
    syncnet: Annotated[
        Path | None, option("SyncNet's weights (.safetensors), for its score.", _VIDEOS, False)
    ] = None


@guarded
@grouped
def evaluate(
    videos: VideoOptions,
    clips: ClipOptions,
    teacher: TeacherOptions,
    streams: StreamsOptions,
    targets: Annotated[list[str], typer.Argument(help="Video files, or one model: 'embedded' or its folder.")],
    out: Annotated[
        Path | None, option("Folder for JSON, tables and pictures.", default="of a model: evaluation")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure lip sync, likeness, colour drift, sharpness, flicker and jumps at chunk borders over time."""
    models = [target for target in targets if target == "embedded" or Path(target).is_dir()]
    _require_one_kind(targets, models, teacher.teacher, streams.streams)
    if not models:
        _require_used("of videos", clips, teacher, streams)
        _videos([Path(target) for target in targets], videos, out, as_json)
        return
    _require_used("of a model", videos)
    folder = out or Path("evaluation")
    _show(_evaluate_model(model_name(models[0]), folder, clips, teacher, streams, stderr().print), folder, as_json)


def _evaluate_model(
    model: str | None,
    folder: Path,
    clips: ClipOptions,
    teacher: TeacherOptions,
    streams: StreamsOptions,
    tell: Callable[[str], None],
) -> _Result:
    from ..training.evaluate.compare import ComparisonConfig, compare_with_teacher
    from ..training.evaluate.run import EvaluationConfig, evaluate_embedded
    from ..training.evaluate.streams import evaluate_streams
    from ..training.evaluate.talk import DEFAULT_SEED, Manner

    if streams.streams:
        _require_used("with --streams", teacher)
        _require_used("with --streams", clips, used=("steps", "guidance"))
        manner = Manner(clips.steps, clips.guidance)
        return evaluate_streams(model, folder, streams.streams, streams.stream_seconds, manner=manner, tell=tell)
    count = clips.seeds if clips.seeds is not None else 1 if teacher.teacher is None else 2
    seeds, manner = tuple(range(DEFAULT_SEED, DEFAULT_SEED + count)), Manner(clips.steps, clips.guidance)
    _require_used("without --streams", streams)
    if teacher.teacher is None:
        _require_used("without --teacher", teacher)
        config = EvaluationConfig(clips.clips, clips.seconds, clips.rollout_seconds, seeds=seeds, manner=manner)
        return evaluate_embedded(model, folder, config, clips.audio_encoder, tell)
    _require_used("with --teacher", clips, used=_COMPARED)
    ways = (manner, Manner(2, clips.guidance))
    guided = Manner(teacher.teacher_steps, teacher.teacher_guidance)
    compared = ComparisonConfig(clips.clips, clips.seconds, seeds, ways, guided)
    return compare_with_teacher(model, model_name(teacher.teacher), folder, compared, clips.audio_encoder, tell)


def _require_one_kind(targets: list[str], models: list[str], teacher: str | None, streams: int) -> None:
    """Raise ConfigError where what is asked for does not go together."""
    if models and len(targets) > 1:
        raise ConfigError(f"{models[0]} is a model; it is evaluated alone.", "Give videos, or one model.")
    if not models and (teacher is not None or streams):
        raise ConfigError(f"There is no model folder {targets[0]!r}.", "--teacher and --streams need a model.")
    if teacher is not None and streams:
        raise ConfigError("--teacher and --streams were both given.", "Ask for one at a time.")


def _require_used(where: str, *groups: Any, used: tuple[str, ...] = ()) -> None:
    """Raise ConfigError where an option was given that does nothing there."""
    for group in groups:
        plain = type(group)()
        for field in fields(group):
            if field.name not in used and getattr(group, field.name) != getattr(plain, field.name):
                name = f"--{field.name.replace('_', '-')}"
                raise ConfigError(f"{name} does nothing in an evaluation {where}.", "Leave it out.", setting=name)


def _videos(paths: list[Path], options: VideoOptions, out: Path | None, as_json: bool) -> None:
    for name, count in (("--slice-frames", options.slice_frames), ("--first-frames", options.first_frames)):
        if count is not None and count < 3:
            raise ConfigError(f"{name} is {count}.", "Give 3 or more.")
    from ..training.evaluate.video import measure_video
    from ..training.evaluate.video_report import SYNC_HEAD, TABLE_HEAD, plot_videos, table_rows, to_json

    picture = None if options.reference is None else _picture(options.reference)
    names = [path.name for path in paths]
    shown = [str(path) if names.count(path.name) > 1 else path.name for path in paths]
    sync = _syncnet(options.syncnet)
    measures = [
        replace(measure_video(path, options.slice_frames, picture, name, options.first_frames), sync=sync(path))
        for path, name in zip(paths, shown, strict=True)
    ]
    result: dict[str, Any] = {"videos": [to_json(each) for each in measures]}
    if out is not None:
        from ..media import make_folder, write_atomic

        make_folder(out)
        write_atomic(out / "videos.json", json.dumps(result, indent=1))
        plot_videos(measures, out / "videos.png", "Videos over time")
    if as_json:
        print_json(result)
        return
    from rich.table import Table

    table = Table(*TABLE_HEAD, *([SYNC_HEAD] if options.syncnet else []), box=None, pad_edge=False)
    for row in table_rows(measures):
        table.add_row(*row)
    console = stdout()
    console.print(table)
    console.print(_LEGEND)
    if out is not None:
        console.print(f"{out / 'videos.png'}")


def _syncnet(weights: Path | None) -> Callable[[Path], SyncScore | None]:
    """What scores a video; nothing without weights."""
    if weights is None:
        return lambda path: None
    from ..lip_sync.syncnet import load_syncnet
    from ..training.evaluate.video_sync import video_sync

    return partial(video_sync, network=load_syncnet(weights))


def _picture(path: Path) -> Any:
    import numpy as np

    from ..media import load_picture

    return np.asarray(load_picture(path).convert("RGB"))


class _Result(Protocol):
    """What every evaluation of a model gives."""

    def to_json(self) -> dict[str, Any]: ...

    def to_markdown(self) -> str: ...


def _show(result: _Result, folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
        return
    console, text = stdout(), result.to_markdown()
    if console.is_terminal:
        from rich.markdown import Markdown

        console.print(Markdown(text))
    else:
        console.print(text, markup=False)
    console.print(f"{folder}")
