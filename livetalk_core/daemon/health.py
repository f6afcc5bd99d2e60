"""Whether a rank still makes progress: the deadlines of its phases, and signs of life between them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

from .daemon_config import Deadlines
from .worker_messages import Beat

_QUIET_PHASES = ("starting", "loading", "compiling")  # imports and loaders hold the interpreter for seconds
_MEASURED = 32


@dataclass
class Progress:
    """Where a rank is, and since when.

    Attributes:
        beat: What it said last.
        since: When its count last grew or its phase changed.
        heard: When it last said anything.
    """

    since: float
    heard: float
    beat: Beat = field(default_factory=lambda: Beat("starting", 0, 0, 0, 0, 0))
    _steps: deque[float] = field(default_factory=lambda: deque(maxlen=_MEASURED))
    _warm: bool = False

    def update(self, beat: Beat, now: float) -> bool:
        """Take in a beat; whether work was completed since the last one."""
        self.heard = now
        before, self.beat = self.beat, beat
        advanced = beat.count > before.count
        if advanced and before.phase == beat.phase == "step":
            self._steps.append(now - self.since)
        if advanced or beat.phase != before.phase:
            self.since = now
        if beat.phase == "idle" and before.phase not in (*_QUIET_PHASES, "idle", "opening", "encoding"):
            self._warm = True  # a whole chunk was made: nothing is compiled for the first time any more
        return advanced

    def overdue(self, deadlines: Deadlines, now: float) -> tuple[str, float] | None:
        """The setting that the rank has broken and its value; None while all is well."""
        phase = self.beat.phase
        if phase not in _QUIET_PHASES and now - self.heard > deadlines.beat:
            return "deadlines.beat", deadlines.beat
        if phase == "idle":
            return None
        name, limit = self._limit(deadlines)
        return (f"deadlines.{name}", limit) if now - self.since > limit else None

    def _limit(self, deadlines: Deadlines) -> tuple[str, float]:
        phase = self.beat.phase
        if phase == "starting":
            return "start", deadlines.start
        if phase in ("loading", "opening", "encoding"):
            return "load", deadlines.load
        if phase == "compiling":
            return "compile", deadlines.compile
        if not self._warm:
            return "first_chunk", deadlines.first_chunk
        usual = median(self._steps) if self._steps else 0.0
        return "step", max(deadlines.step, 10 * usual)
