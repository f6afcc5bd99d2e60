"""The model runs and the film grows, chunk by chunk, until the sound ends or somebody interrupts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..engine import Chunk, Engine, Stream, drive
from ..engine.drive import open_for
from ..errors import LiveTalkError, OutputError, StateError
from ..loading import load_model
from ..models.bundle import ModelBundle
from .compilation import compile_model
from .film import Film
from .interrupts import Interrupts
from .observer import Observer
from .prepare import Job
from .report import Report
from .request import BUNDLED_PORTRAIT


def shoot(job: Job, observer: Observer, interrupts: Interrupts, started: float) -> Report:
    """Load the model and make the video; see `produce`.

    Args:
        job: A checked request.
        observer: Is told how it goes on.
        interrupts: Active signal handling.
        started: `time.perf_counter()` at the beginning of everything.
    """
    observer.phase("loading")
    bundle = _load(job)
    observer.loaded(bundle)
    report = _new_report(job, bundle)
    report.seconds["load"] = time.perf_counter() - started
    film = Film(job, report, observer, started)
    _fill(job, bundle, film, interrupts)
    return report


def _load(job: Job) -> ModelBundle:
    bundle = load_model(job.request.model, job.placement.device, job.placement.dtype)
    if job.request.compile:
        compile_model(bundle)
    return bundle


def _fill(job: Job, bundle: ModelBundle, film: Film, interrupts: Interrupts) -> None:
    """Write every chunk into the film and finish it, whatever ends it."""
    try:
        for stream, chunk in _chunks(job, bundle, film):
            with interrupts.held():
                film.add(chunk, stream.state)
        _require_frames(job, film)
    except KeyboardInterrupt:
        interrupts.settle()
        film.finish("interrupted", interrupts.received)
    except LiveTalkError as error:
        if job.request.state is None or isinstance(error, OutputError) or not film.report.chunks:
            film.discard()
            raise
        interrupts.settle()
        film.finish("failed")
        made = f"The first {film.report.video_seconds:.2f} s are in {job.request.output}"
        error.hint = f"{error.hint} {made}; continue with --resume {job.request.state}.".strip()
        raise
    except BaseException:
        film.discard()
        raise
    else:
        interrupts.settle()
        film.finish("complete")


def _chunks(job: Job, bundle: ModelBundle, film: Film) -> Iterator[tuple[Stream, Chunk]]:
    film.observer.phase("preparing")
    begun = time.perf_counter()
    stream = open_for(Engine(bundle), job.config, job.picture, film.track, state=job.saved)
    film.report.seconds["prepare"] = time.perf_counter() - begun
    film.observer.phase("generating")
    for chunk in drive(stream, film.track):
        yield stream, chunk


def _require_frames(job: Job, film: Film) -> None:
    """A resumed stream may have heard all of the sound already."""
    if not film.report.chunks:
        raise StateError(
            f"The saved stream has heard all of {job.sound.name}: no frames are left to make.",
            "Give the whole recording, or leave --resume out.",
        )


def _new_report(job: Job, bundle: ModelBundle) -> Report:
    request, config = job.request, job.config
    return Report(
        model=bundle.name,
        revision=bundle.revision,
        seed=config.seed,
        width=config.width,
        height=config.height,
        fps=config.geometry.fps,
        steps=config.sampler.steps,
        shift=config.sampler.shift,
        mode=config.audio.mode,
        prompt=config.prompt,
        color_strength=config.correction.color_strength,
        device=str(bundle.device),
        dtype=str(bundle.dtype).removeprefix("torch."),
        audio=request.audio,
        image=str(request.image or BUNDLED_PORTRAIT.name),
        output=str(request.output),
        chunk_frames=config.geometry.frames,
        motion_frames=config.geometry.motion_frames,
        compiled=request.compile,
        resumed_from=None if job.saved is None else job.saved.chunk,
    )
