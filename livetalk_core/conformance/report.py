"""How far computed tensors are from recorded ones, and the verdict."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Literal

from torch import Tensor

Measure = Literal["rel", "max_abs"]


@dataclass(frozen=True)
class Limit:
    """A bound on the relative error |a-b|/|b| or on the largest absolute difference."""

    value: float
    measure: Measure = "rel"


MODULE_LIMIT = Limit(1e-5)
CHUNK_LIMIT = Limit(5e-5)
FRAMES_LIMIT = Limit(0.05, "max_abs")


@dataclass(frozen=True)
class Row:
    """One compared tensor: largest absolute difference, relative error, the bound and the verdict."""

    component: str
    tensor: str
    max_abs: float
    rel: float
    limit: float
    measure: Measure
    ok: bool


@dataclass(frozen=True)
class ConformanceReport:
    """All compared tensors of a folder, and what could not be compared.

    Attributes:
        directory: The folder.
        rows: One per compared tensor.
        absent: File pairs the folder does not hold, and recorded tensors that have no counterpart here.
    """

    directory: str
    rows: tuple[Row, ...]
    absent: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Something was compared and everything compared is within its bound."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def to_json(self) -> str:
        """The report as JSON; infinite errors (another shape, NaN) as null."""
        rows = [{key: _finite(value) for key, value in asdict(row).items()} for row in self.rows]
        plain = {"directory": self.directory, "ok": self.ok, "rows": rows, "absent": list(self.absent)}
        return json.dumps(plain, indent=1, allow_nan=False)


def compare(component: str, tensor: str, computed: Tensor, recorded: Tensor, limit: Limit) -> Row:
    """Compare two tensors in float64; another shape or a NaN is an infinite error."""
    if computed.shape != recorded.shape:
        return Row(component, tensor, math.inf, math.inf, limit.value, limit.measure, False)
    ours, theirs = computed.double(), recorded.double()
    difference = ours - theirs
    max_abs = float(difference.abs().max()) if difference.numel() else 0.0
    rel = float(difference.norm() / theirs.norm().clamp_min(1e-30))
    max_abs, rel = (value if math.isfinite(value) else math.inf for value in (max_abs, rel))
    measured = rel if limit.measure == "rel" else max_abs
    return Row(component, tensor, max_abs, rel, limit.value, limit.measure, measured <= limit.value)


def fit_shape(computed: Tensor, recorded: Tensor) -> Tensor:
    """The computed tensor with or without the axes of length 1 that the recorded one has."""
    ours, theirs = ([n for n in t.shape if n != 1] for t in (computed, recorded))
    return computed.reshape(recorded.shape) if ours == theirs else computed


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
