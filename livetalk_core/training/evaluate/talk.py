"""Let a model speak evaluation cases, and measure what it made of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...config import ChunkGeometry, StreamConfig
from ...engine import Engine, generate
from ...errors import ConfigError
from ...lip_sync import mouth_opening
from ...models.bundle import ModelBundle
from ..methods.guidance import guided_bundle
from .cases import FPS, EvaluationCase, Frames
from .clip_result import ClipResult
from .lips import LipScore, lip_score, loudness_scores
from .look import Gallery, count_all_blinks, measure_borders, measure_drift

Talk = Callable[[EvaluationCase, int], Frames]
"""Makes the video of a case from its reference, its sound and a seed; uint8 [F,H,W,3], as many frames as `truth`."""

DEFAULT_SEED = 9999


@dataclass(frozen=True)
class Manner:
    """How a model is run: sampling steps (None: its own number) and guidance by speech (1: none)."""

    steps: int | None = None
    guidance: float = 1.0

    def describe(self, bundle: ModelBundle) -> str:
        """For tables: "4 steps", "40 steps, guidance 1.5"."""
        steps = bundle.defaults.sampler.steps if self.steps is None else self.steps
        spoken = f"{steps} step{'s' if steps != 1 else ''}"
        return spoken if self.guidance == 1 else f"{spoken}, guidance {self.guidance:g}"


OWN_MANNER = Manner()
"""As the model says."""


@dataclass(frozen=True)
class Judged:
    """A case, its generated video, what was measured on it, and its measured opening [F]."""

    case: EvaluationCase
    video: Frames
    result: ClipResult
    opening: NDArray[np.float32]

    @property
    def line(self) -> str:
        """What was found, in a line."""
        lips = self.result.lips
        return f"{self.case.name}, seed {self.result.seed}: lip score {lips.score:.3f}, lag {lips.lag:+d}"


@dataclass(frozen=True)
class Ceiling:
    """What parts of a model could reach at best on a case: the true video through its VAE, and the lips that its audio
    encoder hears; each None where it is not known."""

    coded: Frames | None = None
    heard: LipScore | None = None


def stream_config(bundle: ModelBundle, seed: int, steps: int | None = None) -> StreamConfig:
    """The model's own settings, hearing the sound chunk by chunk, with other steps where given.

    Raises:
        ConfigError: steps or seed that no stream can have.
    """
    defaults = bundle.defaults
    return defaults.stream(steps=steps, seed=seed, audio=msgspec.structs.replace(defaults.audio, mode="stream"))


def engine_talk(bundle: ModelBundle, manner: Manner = OWN_MANNER) -> Talk:
    """The real engine.

    Raises:
        ConfigError: steps or guidance that this model cannot be run with.
    """
    first = stream_config(bundle, DEFAULT_SEED, manner.steps)
    engine = Engine(guided_bundle(bundle, manner.guidance))

    def talk(case: EvaluationCase, seed: int) -> Frames:
        config = msgspec.structs.replace(first, seed=seed)
        chunks = generate(engine, config, Image.fromarray(case.reference), [case.speech.samples])
        return np.concatenate([chunk.frames for chunk in chunks])

    return talk


def judge(
    talk: Talk,
    case: EvaluationCase,
    geometry: ChunkGeometry,
    gallery: Gallery,
    ceiling: Ceiling | None = None,
    seed: int = DEFAULT_SEED,
) -> Judged:
    """Make the video of one case and measure it, and the case's ceilings beside it."""
    ceiling = ceiling or Ceiling()
    started = time.monotonic()
    video = talk(case, seed)
    seconds = time.monotonic() - started
    step, coded = geometry.slice_frames, ceiling.coded
    opening = mouth_opening(video)
    result = ClipResult(
        case.name, case.speech.synthesiser, seed, len(video), lip_score(opening, case.speech),
        lip_score(mouth_opening(case.truth), case.speech),
        None if coded is None else lip_score(mouth_opening(coded), case.speech), ceiling.heard,
        *loudness_scores(case.speech), measure_borders(video, step), measure_borders(case.truth, step),
        None if coded is None else measure_borders(coded, step),
        measure_drift(case, video, step, gallery), count_all_blinks(case, video), seconds,
    )  # fmt: skip
    return Judged(case, video, result, opening)


def size_and_geometry(bundle: ModelBundle) -> tuple[int, ChunkGeometry]:
    """Side of the model's picture and its chunks.

    Raises:
        ConfigError: it makes no square video at 25 frames per second, as the renderer does.
    """
    defaults = bundle.defaults
    if defaults.width != defaults.height or defaults.geometry.fps != FPS:
        raise ConfigError(
            f"{bundle.name} makes {defaults.width}x{defaults.height} at {defaults.geometry.fps} fps.",
            f"Only square video at {FPS} fps can be compared with the renderer's.",
        )
    return defaults.width, defaults.geometry
