"""`livetalk generate`: a video of a person who speaks a sound file."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import SIGINT, SIGNAL_BASE, guarded, print_json, stderr, stdout
from .parsing import (
    ATTENTION_HELP,
    DEVICE_HELP,
    DEVICES_HELP,
    DTYPE_HELP,
    HOSTS_HELP,
    MODEL_HELP,
    SEED_HELP,
    SIZE_HELP,
    model_name,
    parse_devices,
    parse_size,
    read_hosts,
)

if TYPE_CHECKING:
    from ..production import Report


class Mode(str, Enum):
    """How sound is encoded."""

    stream = "stream"
    whole = "whole"


class DriftAnchor(str, Enum):
    """What drift is measured against."""

    reference = "reference"
    first_chunk = "first_chunk"


_FILES, _LOOK, _RUN, _RANKS = "Files", "What is made", "How it is made", "Several GPUs"


@guarded
def generate(
    audio: Annotated[
        str,
        typer.Option(
            help="Any sound file, or - for raw 16 kHz mono s16le samples from standard input.",
            rich_help_panel=_FILES,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Video to write: .mp4 plays everywhere, .mkv is lossless.", rich_help_panel=_FILES),
    ],
    image: Annotated[
        Path | None,
        typer.Option(help="Picture of the person.", show_default="a bundled portrait", rich_help_panel=_FILES),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write what was made, timings and a digest per chunk as JSON.", rich_help_panel=_FILES),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Keep the state after the newest chunk here, to resume from.", rich_help_panel=_FILES),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Continue a stream saved with --state: give the same sound and picture, the rest is remembered;"
            " --out receives what comes after it.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    model: Annotated[str, typer.Option(help=MODEL_HELP, rich_help_panel=_LOOK)] = "embedded",
    prompt: Annotated[
        str | None,
        typer.Option(help="What the video shows.", show_default="the model's", rich_help_panel=_LOOK),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help=SIZE_HELP, show_default="the picture's shape at the model's area",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help=SEED_HELP, show_default="9999", rich_help_panel=_LOOK)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps.", show_default="the model's", rich_help_panel=_LOOK)
    ] = None,
    shift: Annotated[
        float | None, typer.Option(help="Time shift of the steps.", show_default="the model's", rich_help_panel=_LOOK)
    ] = None,
    color_strength: Annotated[
        float | None,
        typer.Option(help="Colour match to the picture, 0 to 1.", show_default="the model's", rich_help_panel=_LOOK),
    ] = None,
    border_fade: Annotated[
        int | None,
        typer.Option(
            help="Frames over which the jump at a chunk border fades; 0: shown as it is.", show_default="the model's",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    lookback: Annotated[
        int | None,
        typer.Option(
            help="After a chunk that has drifted, make the next one's start anew from so many chunk borders; 0: never.",
            show_default="the model's", rich_help_panel=_LOOK,
        ),
    ] = None,
    drift_threshold: Annotated[
        float | None,
        typer.Option(
            help="Drift from the anchor above which --lookback acts; 1 can be seen.", show_default="the model's",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    renoise: Annotated[
        float | None,
        typer.Option(
            help="How much of the drifted motion --lookback gives up for noise, 0 to 1.", show_default="the model's",
            rich_help_panel=_LOOK,
        ),
    ] = None,
    anchor: Annotated[
        DriftAnchor | None,
        typer.Option(
            help="What drift is measured against.", show_default="the model's", rich_help_panel=_LOOK
        ),
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Use only the beginning of the sound.", rich_help_panel=_LOOK)
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="stream: endless, hears up to now; whole: at most 120 s, hears ahead.", show_default="stream",
            rich_help_panel=_RUN,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP, rich_help_panel=_RUN)] = "auto",
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP, rich_help_panel=_RUN)] = "auto",
    compile_model: Annotated[
        bool, typer.Option("--compile", help="Compile the model first: pays for long videos.", rich_help_panel=_RUN)
    ] = False,
    world_size: Annotated[
        int | None,
        typer.Option(
            help="Compute on this many ranks, one process per GPU, in a daemon that ends with this command; joins one"
            " that 'livetalk daemon start' left running with the same model, ranks and number format.",
            show_default="in this process", rich_help_panel=_RANKS,
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help=DEVICES_HELP, show_default="the first ones", rich_help_panel=_RANKS),
    ] = None,
    attention: Annotated[
        str, typer.Option(help=ATTENTION_HELP, rich_help_panel=_RANKS)
    ] = "auto",
    hosts: Annotated[Path | None, typer.Option(help=HOSTS_HELP, rich_help_panel=_RANKS)] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON on standard output.", rich_help_panel=_RUN)
    ] = False,
) -> int:
    """Make a video of a person who speaks a sound file.

    Ctrl-C ends it with a playable file of what was made.

    Examples:

      livetalk generate --audio talk.wav --out talk.mp4

      livetalk generate --audio talk.mp3 --image me.jpg --model models/SoulX-FlashTalk-14B --out talk.mp4

      ffmpeg -i talk.mp3 -f s16le -ac 1 -ar 16000 - | livetalk generate --audio - --out talk.mp4

      livetalk generate --audio talk.wav --out talk.mp4 --model models/SoulX-FlashTalk-14B --world-size 8
    """
    from ..daemon.daemon_config import DaemonConfig
    from ..production import VideoRequest, produce
    from .progress import ProgressLine

    several = read_hosts(hosts, world_size)
    if several is not None:
        world_size = several.world
    request = VideoRequest(
        audio=audio,
        output=out,
        image=image,
        model=model_name(model),
        prompt=prompt,
        size=parse_size(size),
        seed=seed,
        steps=steps,
        shift=shift,
        color_strength=color_strength,
        border_fade=border_fade,
        lookback=lookback,
        drift_threshold=drift_threshold,
        renoise=renoise,
        anchor=None if anchor is None else anchor.value,
        mode=None if mode is None else mode.value,
        device=device,
        dtype=dtype,
        max_seconds=max_seconds,
        report=report,
        state=state,
        resume=resume,
        compile=compile_model,
        world_size=world_size,
        devices=parse_devices(devices, world_size),
        attention=attention,
        daemon=None if several is None else DaemonConfig(world_size=several.world, hosts=several),
    )
    with ProgressLine(quiet=as_json) as progress:
        made = produce(request, progress)
    if as_json:
        print_json(made.plain())
    return show_result(made, state, quiet=as_json)


def show_result(report: Report, state: Path | None, quiet: bool = False) -> int:
    """Say in a line or two what was made; the exit code."""
    if quiet:
        pass
    elif report.status == "interrupted":
        first = f"{report.output} holds the first {report.video_seconds:.2f} s"
        kept = first if report.chunks else "nothing was written"
        stderr().print(f"[yellow]Interrupted:[/] {kept}.")
        if state is not None and report.chunks:
            stderr().print(f"Continue with: --resume {shlex.quote(str(state))}, the same sound and another --out.")
    else:
        stdout().print(f"[green]Made[/] {describe(report)}")
    return SIGNAL_BASE + (report.signal or SIGINT) if report.status == "interrupted" else 0


def describe(report: Report) -> str:
    """One line about a video."""
    return (
        f"{report.output}: {report.video_seconds:.2f} s, {report.frames} frames of {report.width}x{report.height}, "
        f"{report.model} on {report.device} in {report.dtype}, real-time factor {report.real_time_factor:.2f}"
    )
