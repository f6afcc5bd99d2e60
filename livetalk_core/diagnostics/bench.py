"""How fast a model runs here: per stage, per chunk, first frame, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image

from ..config import StreamConfig
from ..engine import Engine
from ..engine.compilation import compile_model, require_compiler
from ..engine.drive import generate
from ..errors import ConfigError
from ..loading import load_model
from ..media import load_picture, open_sound
from ..models.bundle import ModelBundle
from ..production.request import BUNDLED_PORTRAIT, BUNDLED_SPEECH
from ..telemetry import summarise
from .environment import fingerprint

GROWTH_CHUNKS = 100
"""Fewer timed chunks tell nothing about the growth of memory."""

_GROWTH_POINTS = 250

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, chunks done, chunks in all)."""


@dataclass(frozen=True)
class BenchRequest:
    """What to time: `warmup` chunks that do not count, then `chunks` that do."""

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    size: tuple[int, int] | None = None
    steps: int | None = None
    chunks: int = 8
    warmup: int = 2
    seed: int = 9999
    compile: bool = False


@dataclass(frozen=True)
class BenchResult:
    """Times in seconds, memory in bytes.

    Attributes:
        load_seconds: Reading the model.
        first_frame_seconds: From a picture and sound to the first frames of the first stream, model loaded.
        warm_first_frame_seconds: The same for another stream when everything is warm.
        stages: Per stage, and for the whole "chunk", count, mean, p50, p95, p99 and max.
        fps: New frames per second of computing, from the median chunk.
        real_time_factor: Median chunk over the length of its video; below 1 keeps up with playing.
        peak_rss_bytes: Largest resident set of this process so far.
        rss_first_bytes, rss_last_bytes: Resident set after the first and after the last timed chunk.
        rss_growth_per_100_chunks: Slope of the resident set over the timed chunks, robust against single steps of
            the allocator (see `growth_per_100`); None below `GROWTH_CHUNKS` of them.
        peak_gpu_bytes: Largest memory torch held on the GPU, None on a CPU.
    """

    model: str
    revision: str
    width: int
    height: int
    chunk_frames: int
    motion_frames: int
    steps: int
    device: str
    dtype: str
    compiled: bool
    warmup: int
    chunks: int
    load_seconds: float
    first_frame_seconds: float
    warm_first_frame_seconds: float
    stages: dict[str, dict[str, float]]
    fps: float
    real_time_factor: float
    peak_rss_bytes: int
    rss_first_bytes: int
    rss_last_bytes: int
    rss_growth_per_100_chunks: float | None
    peak_gpu_bytes: int | None
    environment: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {"format": "livetalk-bench", "version": 1, **asdict(self)}


def run_bench(request: BenchRequest, progress: Progress | None = None) -> BenchResult:
    """Load a model and time it.

    Raises:
        ConfigError: numbers that make no measurement.
        CheckpointError, DeviceError, MissingDependencyError: as `load_model` and compiling.
    """
    if request.chunks < 1 or request.warmup < 0:
        raise ConfigError(
            f"{request.chunks} chunks after {request.warmup} for warming up make no measurement.",
            "Time at least one chunk.",
        )
    tell = progress or (lambda what, done, total: None)
    tell("loading", 0, 0)
    begun = time.perf_counter()
    bundle = load_model(request.model, request.device, request.dtype)
    loaded = time.perf_counter() - begun
    if request.compile:
        require_compiler(bundle.device)
        compile_model(bundle)
    config = _config(bundle, request)
    return _measure(bundle, config, request, loaded, tell)


def _config(bundle: ModelBundle, request: BenchRequest) -> StreamConfig:
    defaults = bundle.defaults
    width, height = request.size or (defaults.width, defaults.height)
    steps = defaults.sampler.steps if request.steps is None else request.steps
    return StreamConfig(
        width=width,
        height=height,
        seed=request.seed,
        prompt=defaults.prompt,
        geometry=defaults.geometry,
        sampler=msgspec.structs.replace(defaults.sampler, steps=steps),
        correction=defaults.correction,
        audio=msgspec.structs.replace(defaults.audio, mode="stream"),
    )


def _measure(
    bundle: ModelBundle, config: StreamConfig, request: BenchRequest, loaded: float, tell: Progress
) -> BenchResult:
    picture = load_picture(BUNDLED_PORTRAIT)
    engine = Engine(bundle)
    total = request.warmup + request.chunks
    first_frame, timings, resident = 0.0, [], []
    begun = time.perf_counter()
    for done, chunk in enumerate(islice(_endless(engine, config, picture), total), 1):
        first_frame = first_frame or time.perf_counter() - begun
        tell("warming up" if done <= request.warmup else "timing", done, total)
        if done > request.warmup:
            timings.append({**chunk.timings, "chunk": sum(chunk.timings.values())})
            resident.append(_resident())
    begun = time.perf_counter()
    next(_endless(engine, config, picture))
    warm_first_frame = time.perf_counter() - begun
    stages = summarise(timings)
    median, geometry = stages["chunk"]["p50"], config.geometry
    return BenchResult(
        model=bundle.name,
        revision=bundle.revision,
        width=config.width,
        height=config.height,
        chunk_frames=geometry.frames,
        motion_frames=geometry.motion_frames,
        steps=config.sampler.steps,
        device=str(bundle.device),
        dtype=str(bundle.dtype).removeprefix("torch."),
        compiled=request.compile,
        warmup=request.warmup,
        chunks=request.chunks,
        load_seconds=loaded,
        first_frame_seconds=first_frame,
        warm_first_frame_seconds=warm_first_frame,
        stages=stages,
        fps=geometry.slice_frames / median,
        real_time_factor=median * geometry.fps / geometry.slice_frames,
        peak_rss_bytes=_peak_resident(),
        rss_first_bytes=resident[0],
        rss_last_bytes=resident[-1],
        rss_growth_per_100_chunks=growth_per_100(resident),
        peak_gpu_bytes=_peak_gpu(bundle.device),
        environment=fingerprint(),
    )


def _endless(engine: Engine, config: StreamConfig, picture: Image.Image) -> Iterator[Any]:
    return generate(engine, config, picture, _endless_speech(config.geometry.sample_rate))


def _endless_speech(sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """The bundled sentence again and again: silence could take shorter paths than speech."""
    with open_sound(BUNDLED_SPEECH, sample_rate) as sound:
        blocks = list(sound)
    while True:
        yield from blocks


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def _peak_resident() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return int(peak if sys.platform == "darwin" else peak * 1024)


def growth_per_100(resident: Sequence[int]) -> float | None:
    """Theil-Sen slope of one value per chunk, times 100; None for fewer than `GROWTH_CHUNKS` values.

    The median of the slopes between all pairs: a steady leak shows in full, whatever the noise, while outliers and
    a step near either end (the allocator warming up) hardly count. Long series are thinned to medians of blocks.
    """
    if len(resident) < GROWTH_CHUNKS:
        return None
    values = np.asarray(resident, np.float64)
    block = -(-len(values) // _GROWTH_POINTS)
    points = np.array([np.median(values[i : i + block]) for i in range(0, len(values) - block + 1, block)])
    first, second = np.triu_indices(len(points), 1)
    return float(np.median((points[second] - points[first]) / (second - first))) * 100 / block


def _peak_gpu(device: torch.device) -> int | None:
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None
