"""How long the daemon lives: as long as somebody holds a lease, or until it has been idle."""

from __future__ import annotations

FIRST_CLIENT_SECONDS = 20.0
"""How long a new daemon waits for the client that started it."""


class Leases:
    """Leases are connections; see `ended`.

    Args:
        detached: Whether the daemon outlives its last lease.
        grace: Seconds an owned daemon waits for another lease.
        idle_timeout: Seconds without work after which any daemon ends.
        now: Time of its start.
    """

    def __init__(self, *, detached: bool, grace: float, idle_timeout: float, now: float) -> None:
        self.detached, self.grace, self.idle_timeout = detached, grace, idle_timeout
        self._held: set[int] = set()
        self._left, self._wait = now, max(grace, FIRST_CLIENT_SECONDS)
        self._worked = now

    def __len__(self) -> int:
        return len(self._held)

    def take(self, client: int) -> None:
        """A client has come."""
        self._held.add(client)

    def drop(self, client: int, now: float) -> None:
        """A client has gone; one that held nothing changes nothing."""
        if client in self._held:
            self._held.discard(client)
            self._left, self._wait = now, self.grace

    def worked(self, now: float) -> None:
        """A request came that asks for more than how things stand, or a stream is open."""
        self._worked = now

    def idle(self, now: float) -> float:
        """Seconds without work."""
        return now - self._worked

    def ended(self, now: float) -> str:
        """Why the daemon should end now; "" if it should not."""
        if not self.detached and not self._held and now - self._left >= self._wait:
            return "the last client has left"
        if now - self._worked >= self.idle_timeout:
            return f"idle for {self.idle_timeout:g} s"
        return ""
