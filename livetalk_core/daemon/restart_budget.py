"""How often a group may be replaced before it is given up."""

from __future__ import annotations

from collections import deque


class RestartBudget:
    """At most `limit` restarts within any `window` seconds.

    Args:
        limit, window: See above.
    """

    def __init__(self, limit: int, window: float) -> None:
        self.limit, self.window = limit, window
        self.total = 0
        self._times: deque[float] = deque()

    def take(self, now: float) -> bool:
        """Use one restart at time `now`; False if none is left."""
        while self._times and now - self._times[0] >= self.window:
            self._times.popleft()
        if len(self._times) >= self.limit:
            return False
        self._times.append(now)
        self.total += 1
        return True
