"""The daemons of this user: which there are, how they stand, how one is ended, where its logs are."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..errors import DaemonError, DaemonUnavailableError
from .client import Client
from .daemon_config import DaemonConfig
from .launch import force_stop, living
from .messages import StatsReport
from .processes import Rung
from .runtime_dir import Endpoint, base_directory, is_alive, logs_by_age

_LOOK_SECONDS = 3.0
_LEAVE_SECONDS = 10.0
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class RunningDaemon:
    """A daemon that lives.

    Attributes:
        directory: Its runtime folder, whose name is the daemon's.
        endpoint: How to reach it and what it runs.
    """

    directory: Path
    endpoint: Endpoint

    @property
    def name(self) -> str:
        """What people call it."""
        return self.directory.name

    @property
    def config(self) -> DaemonConfig:
        """What it runs."""
        return self.endpoint.daemon

    def stats(self) -> StatsReport:
        """How it stands.

        Raises:
            DaemonError: it does not answer, or speaks another version.
        """
        with Client.connect(self.directory, self.config, _LOOK_SECONDS) as client:
            return client.stats(_LOOK_SECONDS)

    def memory_bytes(self) -> int:
        """Resident memory of the supervisor and its ranks."""
        total = 0
        with contextlib.suppress(psutil.Error):
            supervisor = psutil.Process(self.endpoint.pid)
            for process in [supervisor, *supervisor.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def logs(self) -> list[Path]:
        """Files that it writes: the supervisor's first, then the ranks'."""
        return _logs_of(self.directory.parent, self.name)


def running_daemons(root: str | None = None) -> list[RunningDaemon]:
    """All daemons of this user.

    Args:
        root: See `DaemonConfig.runtime_root`.

    Raises:
        AccessError: the folder for sockets is not private to this user.
    """
    return [RunningDaemon(directory, endpoint) for directory, endpoint in living(base_directory(root))]


def find_daemons(name: str | None, root: str | None = None) -> list[RunningDaemon]:
    """The daemon of this name or beginning of a name, or all of them.

    Raises:
        DaemonUnavailableError: none of this name.
    """
    daemons = running_daemons(root)
    if name is None:
        return daemons
    found = [daemon for daemon in daemons if daemon.name.startswith(name)]
    if not found:
        known = ", ".join(daemon.name for daemon in daemons)
        hint = f"Running: {known}." if known else "None is running."
        raise DaemonUnavailableError(f"There is no daemon {name!r}.", hint)
    return found


def stop_daemon(daemon: RunningDaemon) -> Rung:
    """End a daemon with its ranks: by a message, or by signals where it does not answer.

    Returns:
        How far it had to go; "" where it was gone already.

    Raises:
        DaemonError: it cannot be ended.
    """
    if not is_alive(daemon.directory):
        return ""
    with contextlib.suppress(DaemonError):
        with Client.connect(daemon.directory, daemon.config, _LOOK_SECONDS) as client:
            client.shutdown(_LOOK_SECONDS)
        ends = time.monotonic() + _LEAVE_SECONDS
        while is_alive(daemon.directory):
            if time.monotonic() >= ends:
                break
            time.sleep(_POLL_SECONDS)
        else:
            return "message"
    rung = force_stop(daemon.directory)
    if not rung and is_alive(daemon.directory):
        raise DaemonError(
            f"The daemon {daemon.name} (process {daemon.endpoint.pid}) does not end.", "Is it being debugged?"
        )
    return rung


def logs(name: str | None = None, root: str | None = None) -> list[Path]:
    """Log files of a daemon, dead ones included: of the newest one if no name is given; empty if there are none.

    Raises:
        DaemonUnavailableError: none of this name.
    """
    base = base_directory(root)
    names = [path.name.partition("-")[0] for path in logs_by_age(base)]
    chosen = [each for each in names if name is None or each.startswith(name)]
    if name is not None and not chosen:
        known = ", ".join(dict.fromkeys(names))
        raise DaemonUnavailableError(
            f"There are no logs of a daemon {name!r}.",
            f"There are those of {known}." if known else "None runs, and none has met a fault.",
        )
    return _logs_of(base, chosen[-1]) if chosen else []


def still_writes(log: Path) -> bool:
    """Whether the daemon of a log file lives."""
    return is_alive(log.parent.parent / log.name.partition("-")[0])


def _logs_of(base: Path, name: str) -> list[Path]:
    found = (base / "logs").glob(f"{name}-*.log")
    return sorted(found, key=lambda path: (not path.stem.endswith("supervisor"), len(path.name), path.name))
