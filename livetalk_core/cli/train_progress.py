"""How training shows where it is: a bar on a terminal, a line per entry of the metrics elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from .console import stderr


class TrainingLine:
    """Shows lines of metrics.

    Args:
        iterations: Of the whole run.
        quiet: Say nothing.
    """

    def __init__(self, iterations: int, quiet: bool = False) -> None:
        self.iterations, self.quiet = iterations, quiet
        self._bar: Any = None
        self._task: Any = None
        self._before: tuple[int, float] = (0, 0.0)
        self._first = True

    def __enter__(self) -> TrainingLine:
        if not self.quiet and sys.stderr.isatty():
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("iteration {task.completed}/{task.total}"), BarColumn(bar_width=24),
                TextColumn("{task.fields[facts]}", style="dim"), console=stderr(),
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("", total=self.iterations, facts="loading")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, row: dict[str, Any]) -> None:
        """Take in one line of metrics."""
        if self.quiet:
            return
        done, seconds = row["iteration"], row["seconds"]
        past, spent = self._before
        each = (seconds - spent) / max(1, done - past)
        self._before, first, self._first = (done, seconds), self._first, False
        values = "  ".join(f"{name} {row[name]:.4g}" for name in row if name.endswith("loss") and row[name] is not None)
        # After --resume the first line does not know how many iterations its seconds were.
        left = "" if first else f"  {each:.1f} s each, {_duration(each * (self.iterations - done))} left"
        facts = f"{values}{left}"
        if self._bar is None:
            stderr().print(f"iteration {done}/{self.iterations}  {facts}")
        else:
            self._bar.update(self._task, completed=done, facts=facts)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
