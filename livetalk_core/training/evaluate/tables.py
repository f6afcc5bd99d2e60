"""Requirements, Markdown tables and JSON values of reports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One requirement: what, the figure, the limit it should keep, whether at least or at most."""

    what: str
    figure: float
    limit: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        """Whether the figure keeps its limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


def bar_table(bars: Sequence[Bar]) -> str:
    """Requirements and whether they are met, as Markdown."""
    rows = []
    for bar in bars:
        limit = f"{'≥' if bar.at_least else '≤'} {bar.limit:g}"
        rows.append([bar.what, f"{bar.figure:.3f}", limit, "yes" if bar.passed else "**no**"])
    return table(["requirement", "figure", "bar", "met"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def plain_json(value: Any) -> Any:
    """The value without tuples and without numbers that JSON has none for: those become null."""
    if isinstance(value, dict):
        return {key: plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")
