"""Prepare training data from what a user names: a folder of videos, or a number of people to draw."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from ..loading import load_encoders, open_parts
from ..media import make_folder
from ..models.bundle import ModelBundle
from .data.drawn import DrawnSource
from .data.prepare import Progress, prepare
from .data.prepared import DatasetIndex
from .data.raw import ClipSource
from .data.videos import VideoOptions, VideoSource
from .speech.bank import build_bank, load_bank, save_bank

BANK = "speech_bank.safetensors"
_UTTERANCES = 200


@dataclass(frozen=True)
class PrepareRequest:
    """What to prepare; exactly one of `videos` and `drawn`.

    Attributes:
        out: Folder of the result.
        model: Model folder whose encoders are used; None: the embedded model.
        videos: Folder of talking videos.
        drawn: How many people to draw.
        bank: What drawn people say; None: spoken now, and kept in `out`.
        first_seed: Of the first drawn person.
        chunks: Per clip.
        size: Width and height whose area the frames have; None: the model's.
        still_background: See `VideoOptions`.
        device: Where the encoders run.
    """

    out: Path
    model: str | None = None
    videos: Path | None = None
    drawn: int = 0
    bank: Path | None = None
    first_seed: int = 0
    chunks: int = 5
    size: tuple[int, int] | None = None
    still_background: float = 0.96
    device: str = "auto"


def run_prepare(request: PrepareRequest, progress: Progress | None = None) -> DatasetIndex:
    """Encode everything that the request names; interrupted, the same call goes on.

    Raises:
        ConfigError: neither or both of videos and drawn people, or a size that cannot be.
        TrainingError, CheckpointError, OutputError: see `prepare`, `load_encoders`.
        MissingDependencyError: drawing or speaking is not installed.
    """
    if (request.videos is None) == (request.drawn == 0) or request.drawn < 0 or request.chunks < 1:
        raise ConfigError(
            "Say what to prepare: a folder of videos, or --drawn N people, with one chunk or more per clip.",
            "livetalk train prepare VIDEOS --out DIR, or livetalk train prepare --drawn 64 --out DIR.",
        )
    encoders = open_parts(request.model).encoders
    bundle = load_encoders(request.model, request.device)
    return prepare(_source(request, bundle), bundle, encoders, request.out, progress)


def _source(request: PrepareRequest, bundle: ModelBundle) -> ClipSource:
    defaults = bundle.defaults
    width, height = request.size or (defaults.width, defaults.height)
    # Refuses a size as the engine does.
    defaults.stream(width=width, height=height)
    if request.videos is not None:
        options = VideoOptions(width * height, request.chunks, still_background=request.still_background)
        return VideoSource(request.videos, defaults.geometry, options)
    if width != height:
        raise ConfigError(f"Drawn people are square, not {width}x{height}.", "Give --size such as 128x128.")
    path = request.bank or request.out / BANK
    if request.bank is None and not path.is_file():
        make_folder(request.out)
        save_bank(build_bank(_UTTERANCES, seed=0), path)
    return DrawnSource(
        load_bank(path), request.drawn, request.chunks, width, defaults.geometry, request.first_seed
    )
