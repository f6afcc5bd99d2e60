"""How fast a model runs here: per stage, per chunk, first frame, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ..config import Offload
from ..errors import ConfigError, ParallelError
from ..loading.describe import describe_model
from ..media import array_sound, load_picture, open_sound
from ..production.backend import Backend, Watch
from ..production.choose_backend import make_backend
from ..production.facts import Made, ModelFacts
from ..production.observer import Observer
from ..production.prepare import Job, require_world
from ..production.request import BUNDLED_PORTRAIT, BUNDLED_SPEECH, VideoRequest
from ..production.sound_track import SoundTrack
from ..telemetry import summarise
from .environment import fingerprint
from .memory import growth_per_100, peak_gpu_bytes, peak_resident_bytes, resident_bytes

Progress = Callable[[str, int, int], None]
"""Called with (what is going on, chunks done, chunks in all)."""


@dataclass(frozen=True)
class BenchRequest:
    """What to time: `warmup` chunks that do not count, then `chunks` that do; the rest as for a `VideoRequest`."""

    model: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    size: tuple[int, int] | None = None
    steps: int | None = None
    chunks: int = 8
    warmup: int = 2
    seed: int = 9999
    compile: bool = False
    offload: Offload = "auto"
    world_size: int | None = None
    devices: tuple[int, ...] | None = None
    attention: str = "auto"


@dataclass(frozen=True)
class BenchResult:
    """Times in seconds, memory in bytes.

    Attributes:
        world_size: Processes that compute; 1 is this one where no world was asked for.
        load_seconds: Starting the processes and reading the model.
        first_frame_seconds: From a picture and sound to the first frames of the first stream, model loaded.
        warm_first_frame_seconds: The same for another stream when everything is warm.
        stages: Per stage, and from one "chunk" to the next, count, mean, p50, p95, p99 and max.
        fps: New frames per second of computing, from the median chunk.
        real_time_factor: Median chunk over the length of its video; below 1 keeps up with playing.
        peak_rss_bytes: Largest resident set of a process that computes.
        rss_first_bytes, rss_last_bytes: Resident sets after the first and after the last timed chunk, all together.
        rss_growth_per_100_chunks: Slope of the resident sets over the timed chunks, robust against single steps of
            the allocator (see `growth_per_100`); None below `GROWTH_CHUNKS` of them.
        peak_gpu_bytes: Largest memory torch held on the GPU; None on a CPU, and where others compute.
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
    world_size: int
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
    video = VideoRequest(
        audio=str(BUNDLED_SPEECH), output=Path(), model=request.model, device=request.device, dtype=request.dtype,
        compile=request.compile, offload=request.offload, world_size=request.world_size, devices=request.devices,
        attention=request.attention,
    )  # fmt: skip
    job = _job(video, request)
    tell("loading", 0, 0)
    begun = time.perf_counter()
    with closing(make_backend(video)) as backend:
        model = backend.load(Watch(Observer()))
        return _measure(backend, model, job, request, time.perf_counter() - begun, tell)


def _job(video: VideoRequest, request: BenchRequest) -> Job:
    manifest = describe_model(request.model)
    defaults = manifest.defaults
    width, height = request.size or (defaults.width, defaults.height)
    audio = msgspec.structs.replace(defaults.audio, mode="stream")
    config = defaults.stream(steps=request.steps, width=width, height=height, seed=request.seed, audio=audio)
    if video.world_size is not None:
        require_world(video.world_size, config)
    rate = config.geometry.sample_rate
    sound = array_sound(_endless_speech(rate), rate)
    return Job(video, manifest, request.dtype, config, load_picture(BUNDLED_PORTRAIT), sound, None)


def _measure(
    backend: Backend, model: ModelFacts, job: Job, request: BenchRequest, loaded: float, tell: Progress
) -> BenchResult:
    first_frame, timings, resident = _time_chunks(backend, job, request, tell)
    begun = time.perf_counter()
    next(_endless(backend, job))
    warm_first_frame = time.perf_counter() - begun
    stages, config = summarise(timings), job.config
    median, geometry = stages["chunk"]["p50"], config.geometry
    return BenchResult(
        model=model.name,
        revision=model.revision,
        width=config.width,
        height=config.height,
        chunk_frames=geometry.frames,
        motion_frames=geometry.motion_frames,
        steps=config.sampler.steps,
        device=model.device,
        dtype=model.dtype,
        world_size=model.world_size,
        compiled=request.compile,
        warmup=request.warmup,
        chunks=request.chunks,
        load_seconds=loaded,
        first_frame_seconds=first_frame,
        warm_first_frame_seconds=warm_first_frame,
        stages=stages,
        fps=geometry.slice_frames / median,
        real_time_factor=median * geometry.fps / geometry.slice_frames,
        peak_rss_bytes=max(peak_resident_bytes(pid) for pid in backend.worker_pids),
        rss_first_bytes=resident[0],
        rss_last_bytes=resident[-1],
        rss_growth_per_100_chunks=growth_per_100(resident),
        peak_gpu_bytes=peak_gpu_bytes(model.device) if request.world_size is None else None,
        environment=fingerprint(),
    )


def _time_chunks(
    backend: Backend, job: Job, request: BenchRequest, tell: Progress
) -> tuple[float, list[dict[str, float]], list[int]]:
    """Seconds to the first frame; of each timed chunk the seconds per stage, and the resident bytes after it."""
    total = request.warmup + request.chunks
    first_frame, timings, resident = 0.0, [], []
    pace = time.perf_counter()
    pids = backend.worker_pids
    for done, made in enumerate(islice(_endless(backend, job), total), 1):
        seconds, pace = time.perf_counter() - pace, time.perf_counter()
        first_frame = first_frame or seconds
        tell("warming up" if done <= request.warmup else "timing", done, total)
        if done > request.warmup:
            timings.append({**made.timings, "chunk": seconds})
            if backend.worker_pids != pids:
                raise ParallelError(
                    f"A rank was replaced while chunk {done} was timed: the figures mean nothing.",
                    "See why with 'livetalk daemon logs', and measure again.",
                )
            resident.append(resident_bytes(pids))
    return first_frame, timings, resident


def _endless(backend: Backend, job: Job) -> Iterator[Made]:
    """Chunk after chunk; their sound is let go, as a film would."""
    geometry = job.config.geometry
    track = SoundTrack(_endless_speech(geometry.sample_rate))
    with closing(backend.open(job, track, Watch(Observer()))) as chunks:
        for made in chunks:
            track.take((made.first_frame + len(made.frames)) * geometry.samples_per_frame)
            yield made


def _endless_speech(sample_rate: int) -> Iterator[NDArray[np.float32]]:
    """The bundled sentence again and again: silence could take shorter paths than speech."""
    with open_sound(BUNDLED_SPEECH, sample_rate) as sound:
        blocks = list(sound)
    while True:
        yield from blocks
