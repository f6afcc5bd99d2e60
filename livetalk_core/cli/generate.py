"""`livetalk generate`: a video of a person who speaks a sound file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .console import SIGINT, SIGNAL_BASE, guarded, print_json, stderr, stdout
from .groups import grouped
from .options import (
    IMAGE_HELP,
    SEED_HELP,
    SIZE_HELP,
    STEPS_HELP,
    HostsFile,
    Json,
    ModelOptions,
    RankOptions,
    option,
    request_fields,
)
from .parsing import parse_size, read_hosts

if TYPE_CHECKING:
    from ..daemon.hosts import Hosts
    from ..production import Report, VideoRequest


class Mode(str, Enum):
    """How sound is encoded."""

    stream = "stream"
    whole = "whole"


class DriftAnchor(str, Enum):
    """What drift is measured against."""

    reference = "reference"
    first_chunk = "first_chunk"


_FILES, _LOOK, _DRIFT = "Files", "What is made", "Drift and chunk borders"
_MODELS = "the model's"


@dataclass(frozen=True)
class FileOptions:
    """What is read and written."""

    audio: Annotated[
        str, option("Any sound file, or - for raw 16 kHz mono s16le samples from standard input.", _FILES)
    ]
    out: Annotated[Path, option("Video to write: .mp4 plays everywhere, .mkv is lossless.", _FILES)]
    image: Annotated[Path | None, option(IMAGE_HELP, _FILES, "a bundled portrait")] = None
    report: Annotated[
        Path | None, option("Write what was made, timings and a digest per chunk as JSON.", _FILES)
    ] = None
    state: Annotated[
        Path | None, option("Keep the state after the newest chunk here, to resume from.", _FILES)
    ] = None
    resume: Annotated[
        Path | None,
        option(
            "Continue a stream saved with --state: give the same sound and picture, the rest is remembered; --out"
            " receives what comes after it.",
            _FILES,
        ),
    ] = None


@dataclass(frozen=True)
class LookOptions:
    """What is made of them."""

    prompt: Annotated[str | None, option("What the video shows.", _LOOK, _MODELS)] = None
    size: Annotated[str | None, option(SIZE_HELP, _LOOK, "the picture's shape at the model's area")] = None
    seed: Annotated[int | None, option(SEED_HELP, _LOOK, "9999")] = None
    steps: Annotated[int | None, option(STEPS_HELP, _LOOK, _MODELS)] = None
    shift: Annotated[float | None, option("Time shift of the steps.", _LOOK, _MODELS)] = None
    max_seconds: Annotated[float | None, option("Use only the beginning of the sound.", _LOOK)] = None
    mode: Annotated[
        Mode | None,
        option("stream: endless, hears up to now; whole: at most 120 s, hears ahead.", _LOOK, "stream"),
    ] = None


@dataclass(frozen=True)
class CorrectionOptions:
    """How a chunk is kept from drifting, and joined to the last one; see `CorrectionConfig`."""

    color_strength: Annotated[float | None, option("Colour match to the picture, 0 to 1.", _DRIFT, _MODELS)] = None
    border_fade: Annotated[
        int | None,
        option("Frames over which the jump at a chunk border fades; 0: shown as it is.", _DRIFT, _MODELS),
    ] = None
    lookback: Annotated[
        int | None,
        option(
            "After a chunk that has drifted, make the next one's start anew from so many chunk borders; 0: never.",
            _DRIFT, _MODELS,
        ),
    ] = None  # fmt: skip
    drift_threshold: Annotated[
        float | None,
        option("Drift from the anchor above which --lookback acts; 1 can be seen.", _DRIFT, _MODELS),
    ] = None
    renoise: Annotated[
        float | None,
        option("How much of the drifted motion --lookback gives up for noise, 0 to 1.", _DRIFT, _MODELS),
    ] = None
    anchor: Annotated[DriftAnchor | None, option("What drift is measured against.", _DRIFT, _MODELS)] = None


@guarded
@grouped
def generate(
    files: FileOptions,
    look: LookOptions,
    correction: CorrectionOptions,
    model: ModelOptions,
    ranks: RankOptions,
    hosts: HostsFile = None,
    as_json: Json = False,
) -> int:
    """Make a video of a person who speaks a sound file.

    Ctrl-C ends it with a playable file of what was made.

    Examples:

      livetalk generate --audio talk.wav --out talk.mp4

      livetalk generate --audio talk.mp3 --image me.jpg --model models/SoulX-FlashTalk-14B --out talk.mp4

      ffmpeg -i talk.mp3 -f s16le -ac 1 -ar 16000 - | livetalk generate --audio - --out talk.mp4

      livetalk generate --audio talk.wav --out talk.mp4 --model models/SoulX-FlashTalk-14B --world-size 8
    """
    from ..production import produce
    from .progress import ProgressLine

    request = _request(files, look, correction, model, ranks, read_hosts(hosts, ranks.world_size))
    with ProgressLine(quiet=as_json) as progress:
        made = produce(request, progress)
    if as_json:
        print_json(made.plain())
    return show_result(made, files.state, quiet=as_json)


def _request(
    files: FileOptions,
    look: LookOptions,
    correction: CorrectionOptions,
    model: ModelOptions,
    ranks: RankOptions,
    hosts: Hosts | None,
) -> VideoRequest:
    from ..daemon.daemon_config import DaemonConfig
    from ..production import VideoRequest

    world = ranks.world_size if hosts is None else hosts.world
    return VideoRequest(
        audio=files.audio,
        output=files.out,
        image=files.image,
        report=files.report,
        state=files.state,
        resume=files.resume,
        prompt=look.prompt,
        size=parse_size(look.size),
        seed=look.seed,
        steps=look.steps,
        shift=look.shift,
        max_seconds=look.max_seconds,
        mode=None if look.mode is None else look.mode.value,
        color_strength=correction.color_strength,
        border_fade=correction.border_fade,
        lookback=correction.lookback,
        drift_threshold=correction.drift_threshold,
        renoise=correction.renoise,
        anchor=None if correction.anchor is None else correction.anchor.value,
        **request_fields(model, ranks, world),
        daemon=None if hosts is None else DaemonConfig(world_size=hosts.world, hosts=hosts),
    )


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
