"""Metrics of a run: one JSON line every few iterations, and their curves as a picture."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from ...loading.atomic_files import unwritable
from ...media import curves_plot, make_folder, write_atomic


class MetricLog:
    """Averages values and writes them; ranks other than the first only average.

    Args:
        folder: Gets metrics.jsonl and curves.png.
        active: Whether this rank writes.
        start: Iteration that the run continues from; later lines of an interrupted run are dropped.
    """

    def __init__(self, folder: Path, active: bool, start: int = 0) -> None:
        self.path, self.active = folder / "metrics.jsonl", active
        self._sums: dict[str, list[float]] = defaultdict(list)
        if active:
            make_folder(folder)
            kept = [row for row in read_metrics(self.path) if row["iteration"] <= start]
            write_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))

    def add(self, values: dict[str, float]) -> None:
        """Take in the values of one iteration."""
        for name, value in values.items():
            self._sums[name].append(value)

    def write(self, iteration: int, **facts: Any) -> dict[str, Any]:
        """One line with the means since the last.

        Raises:
            OutputError: the disk is full, or the folder has gone.
        """
        means = {name: _short(sum(values) / len(values)) for name, values in self._sums.items()}
        self._sums.clear()
        row = {"iteration": iteration, **facts, **means}
        if self.active:
            try:
                with self.path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise unwritable(self.path, error) from error
        return row

    def plot(self, title: str) -> None:
        """Draw all metrics that have been written into curves.png."""
        if self.active:
            plot_metrics(self.path, self.path.with_name("curves.png"), title)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a line that a crash cut short is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def plot_metrics(path: Path, picture: Path, title: str) -> None:
    """Curves of every metric of a run on one logarithmic axis."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for row in read_metrics(path):
        for name, value in row.items():
            if name not in ("iteration", "seconds") and isinstance(value, int | float) and value > 0:
                xs, ys = curves.setdefault(name, ([], []))
                xs.append(row["iteration"])
                ys.append(value)
    if curves:
        longest = max(len(xs) for xs, _ in curves.values())
        curves_plot(curves, picture, title, "iteration", log_y=True, smooth=max(1, longest // 20))


def _short(value: float) -> float | None:
    """Six significant digits; None for what JSON has no number for."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
