"""Which process a number means, how one is ended (asked, told, killed), and what this one may run on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from typing import Literal

Rung = Literal["", "message", "sigterm", "sigkill"]


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started_at(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if there is none or the system does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is a name in brackets that may hold anything.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == b"Z" else int(fields[19])


def is_same_process(pid: int, started: int) -> bool:
    """Whether the process with this number is the one that started then, not a later one."""
    return started > 0 and started_at(pid) == started


def signal_same(pid: int, started: int, number: signal.Signals) -> bool:
    """Signal a process unless its number means another one by now; whether it was signalled."""
    if not is_same_process(pid, started):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal a child that leads its own process group, and what it started; nothing if it was reaped."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)


class Ladder:
    """Ends processes: a message was sent; after `message` seconds SIGTERM, after `terminate` more SIGKILL.

    Args:
        processes: Children that lead their own process groups.
        message, terminate: See above.
        now: Time at which the message was sent.
    """

    def __init__(
        self, processes: list[subprocess.Popen[bytes]], message: float, terminate: float, now: float
    ) -> None:
        self._processes = processes
        self._terminate_at, self._kill_at = now + message, now + message + terminate
        self.rung: Rung = "message"

    def gone(self, now: float) -> bool:
        """Climb as far as the time says; True when no process is left."""
        left = [process for process in self._processes if process.poll() is None]
        if not left:
            return True
        if now >= self._kill_at:
            self._climb(left, "sigkill", signal.SIGKILL)
        elif now >= self._terminate_at:
            self._climb(left, "sigterm", signal.SIGTERM)
        return False

    def _climb(self, left: list[subprocess.Popen[bytes]], rung: Rung, number: signal.Signals) -> None:
        if self.rung != rung:
            self.rung = rung
            for process in left:
                signal_group(process, number)
