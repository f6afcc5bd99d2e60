"""The model runs and the film grows, chunk by chunk, until the sound ends or somebody interrupts."""

from __future__ import annotations

import time
from contextlib import closing

from ..errors import LiveTalkError, StateError
from .backend import Backend, Stopped, Watch
from .facts import ModelFacts
from .film import Film
from .interrupts import Interrupts
from .prepare import Job
from .report import Report


def shoot(job: Job, backend: Backend, watch: Watch, interrupts: Interrupts, started: float) -> Report:
    """Load the model and make the video; see `produce`.

    Args:
        job: A checked request.
        backend: Makes the chunks.
        watch: Is told how it goes on, and may stop it.
        interrupts: Active signal handling.
        started: `time.perf_counter()` at the beginning of everything.
    """
    model = backend.load(watch)
    watch.observer.loaded(model)
    report = _new_report(job, model)
    report.seconds["load"] = time.perf_counter() - started
    film = Film(job, report, watch.observer, started)
    _fill(job, backend, film, watch, interrupts)
    return report


def _fill(job: Job, backend: Backend, film: Film, watch: Watch, interrupts: Interrupts) -> None:
    """Write every chunk into the film and finish it, whatever ends it."""
    try:
        _record(job, backend, film, watch, interrupts)
        _require_frames(job, film)
    except (KeyboardInterrupt, Stopped):
        interrupts.settle()
        film.finish("interrupted", interrupts.received)
    except Exception as error:
        if not film.continues:
            film.discard()
            raise
        interrupts.settle()
        film.finish("failed")
        if isinstance(error, LiveTalkError):
            made = f"The first {film.report.video_seconds:.2f} s are in {job.request.output}"
            error.hint = f"{error.hint} {made}; continue with --resume {job.request.state}.".strip()
        raise
    except BaseException:
        film.discard()
        raise
    else:
        interrupts.settle()
        film.finish("complete")


def _record(job: Job, backend: Backend, film: Film, watch: Watch, interrupts: Interrupts) -> None:
    watch.observer.phase("preparing")
    begun = time.perf_counter()
    with closing(backend.open(job, film.track, watch)) as chunks:
        film.report.seconds["prepare"] = time.perf_counter() - begun
        watch.observer.phase("generating")
        for made in chunks:
            with interrupts.held():
                film.add(made)
    # A rank that died has been replaced by another process.
    film.report.worker_pids = list(backend.worker_pids)


def _require_frames(job: Job, film: Film) -> None:
    """A resumed stream may have heard all of the sound already."""
    if not film.report.chunks:
        raise StateError(
            f"The saved stream has heard all of {job.sound.name}: no frames are left to make.",
            "Give the whole recording, or leave --resume out.",
        )


def _new_report(job: Job, model: ModelFacts) -> Report:
    request, config = job.request, job.config
    return Report(
        model=model.name,
        revision=model.revision,
        seed=config.seed,
        width=config.width,
        height=config.height,
        fps=config.geometry.fps,
        steps=config.sampler.steps,
        shift=config.sampler.shift,
        mode=config.audio.mode,
        prompt=config.prompt,
        color_strength=config.correction.color_strength,
        border_fade=config.correction.border_fade,
        lookback=config.correction.lookback,
        device=model.device,
        dtype=model.dtype,
        audio=request.sound_name,
        image=request.image_name,
        output=str(request.output),
        chunk_frames=config.geometry.frames,
        motion_frames=config.geometry.motion_frames,
        compiled=request.compile,
        resumed_from=None if job.saved is None else job.saved.chunk,
        world_size=model.world_size,
        worker_pids=list(model.worker_pids),
    )
