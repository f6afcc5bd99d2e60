"""Does this engine compute the published function? Recorded weights, inputs and results decide."""

from __future__ import annotations

from .report import ConformanceReport, Row
from .run import run

__all__ = ["ConformanceReport", "Row", "run"]
