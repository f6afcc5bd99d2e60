"""A bar on a terminal over anything that is done in parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .console import stderr


@contextmanager
def work_bar(quiet: bool = False, counted: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """A bar that is told what is going on, how much of it is done, and of how much; 0: nobody knows.

    Args:
        quiet: Show nothing, as where standard error is no terminal.
        counted: Show the numbers too.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    numbers = [MofNCompleteColumn()] if counted else []
    columns = [SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), *numbers]
    with Progress(*columns, TimeRemainingColumn(), console=stderr(), transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total or None)
