"""The progress line of a production: chunks, seconds made, pace, time left."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..production.observer import Observer, Phase
from .console import stderr

if TYPE_CHECKING:
    from ..production.facts import ModelFacts
    from ..production.prepare import Job
    from ..production.report import ChunkRecord

_WORDS = {
    "checking": "checking the inputs",
    "starting": "starting the ranks",
    "loading": "loading the model",
    "preparing": "preparing picture and sound",
    "generating": "generating",
    "recovering": "replacing the ranks",
    "finishing": "finishing the file",
}


class ProgressLine(Observer):
    """Shows an observed production on a terminal; says nothing where standard error is none.

    Args:
        quiet: Say nothing at all.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._made = self._spent = 0.0
        self._step = ""
        self._seconds: float | None = None
        if not quiet and sys.stderr.isatty():
            self._progress = _make_progress()

    def __enter__(self) -> ProgressLine:
        if self._progress is not None:
            self._progress.start()
            self._task = self._progress.add_task("starting", total=None, facts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def phase(self, name: Phase) -> None:
        """See `Observer`."""
        self._update(description=_WORDS.get(name, name))

    def checked(self, job: Job) -> None:
        """See `Observer`."""
        self._seconds = job.seconds

    def loaded(self, model: ModelFacts) -> None:
        """See `Observer`."""
        ranks = "" if model.world_size == 1 else f", {model.world_size} ranks"
        self._update(facts=f"{model.name}, {model.device}{ranks}")

    def step(self, chunk: int, step: int, steps: int) -> None:
        """See `Observer`."""
        self._step = f"chunk {chunk + 1}, step {step} of {steps}"
        self._show_facts()

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """See `Observer`."""
        self._made += record.duration
        self._spent += record.seconds
        self._update(total=self._seconds, completed=self._made)
        self._show_facts()

    def _show_facts(self) -> None:
        total = "" if self._seconds is None else f" of {self._seconds:.1f}"
        pace = f", {self._made:.1f}{total} s, real-time factor {self._spent / self._made:.2f}" if self._made else ""
        self._update(facts=self._step + pace)

    def _update(self, **fields: Any) -> None:
        if self._progress is not None:
            self._progress.update(self._task, **fields)


def _make_progress() -> Any:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[facts]}", style="dim"),
        TimeRemainingColumn(),
        console=stderr(),
        transient=True,
    )
