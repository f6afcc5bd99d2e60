"""Structured events and stage timings; never a secret."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LOGGER = logging.getLogger("livetalk")
_SECRET_WORDS = ("token", "password", "secret", "authorization", "credential", "api_key")
_MAX_TEXT = 2000


@dataclass(frozen=True)
class Event:
    """Something that happened: a stable name, the log level and plain values."""

    name: str
    level: int
    fields: dict[str, Any]


Listener = Callable[[Event], None]
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every event to `listener` inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def emit(name: str, level: int = logging.INFO, **fields: Any) -> Event:
    """Log an event and hand it to the listeners.

    Values under keys that name a secret are replaced, home folders are shortened to ~, long text is cut.
    """
    event = Event(name, level, {key: _clean(key, value) for key, value in fields.items()})
    if LOGGER.isEnabledFor(level):
        text = json.dumps(event.fields, default=str, ensure_ascii=False)
        LOGGER.log(level, "%s %s", name, text, extra={"event": event})
    for listener in tuple(_listeners):
        listener(event)
    return event


def _clean(key: str, value: Any) -> Any:
    if any(word in key.lower() for word in _SECRET_WORDS):
        return "[redacted]"
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        return value
    home = os.path.expanduser("~")
    text = value.replace(home, "~") if len(home) > 1 else value
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


@dataclass
class StageTimer:
    """Seconds spent per named stage.

    Args:
        synchronise: Called at both ends of a stage, so that work queued on a GPU is counted where it belongs.
    """

    synchronise: Callable[[], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage `name`, also when it raises."""
        start = self._now()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - start

    def _now(self) -> float:
        if self.synchronise is not None:
            self.synchronise()
        return time.perf_counter()


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear-interpolated percentile of a non-empty sequence; ValueError if it is empty."""
    if not values:
        raise ValueError("percentile of no values")
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def summarise(timings: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Per stage: count, mean, p50, p95, p99 and max of the seconds, stages in order of appearance."""
    stages: dict[str, list[float]] = {}
    for timing in timings:
        for name, seconds in timing.items():
            stages.setdefault(name, []).append(seconds)
    return {
        name: {
            "count": len(values),
            "mean": sum(values) / len(values),
            **{f"p{percent}": percentile(values, percent) for percent in (50, 95, 99)},
            "max": max(values),
        }
        for name, values in stages.items()
    }
