"""Daemons as a table for people and as JSON types."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DaemonError
from .console import stderr, stdout

if TYPE_CHECKING:
    from ..daemon.messages import StatsReport
    from ..daemon.registry import RunningDaemon

_MIB = 2**20


def _stats(daemon: RunningDaemon) -> StatsReport | DaemonError:
    try:
        return daemon.stats()
    except DaemonError as error:
        return error


def plain(daemon: RunningDaemon) -> dict[str, Any]:
    """A daemon as JSON types; `state` is "unreachable" where it does not answer."""
    config, stats = daemon.config, _stats(daemon)
    plain: dict[str, Any] = {
        "pid": daemon.endpoint.pid,
        "model": config.model or "embedded",
        "world_size": config.world_size,
        "device": config.device,
        "dtype": config.dtype,
        "detached": config.detached,
        "idle_timeout": config.idle_timeout,
        "memory_bytes": daemon.memory_bytes(),
        "logs": [str(path) for path in daemon.logs()],
    }
    if isinstance(stats, DaemonError):
        return {**plain, "state": "unreachable", "problem": str(stats)}
    ranks = [
        {"rank": rank.rank, "pid": rank.pid, "phase": rank.phase, "chunk": rank.chunk, "step": rank.step}
        for rank in stats.ranks
    ]
    return {
        **plain, "state": stats.state, "uptime": stats.uptime, "idle": stats.idle, "restarts": stats.restarts,
        "last_rung": stats.last_rung, "clients": stats.clients - 1, "streams": stats.streams, "chunks": stats.chunks,
        "ranks": ranks,
    }  # fmt: skip


def show(daemons: Sequence[RunningDaemon]) -> None:
    """Print the table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "daemon", "model, ranks", "processes", "does", "up", "ends", "restarts", "memory", box=None, pad_edge=False
    )
    for daemon in daemons:
        row = plain(daemon)
        ranks = " ".join(str(rank["pid"]) for rank in row.get("ranks", []))
        model = escape(f"{Path(row['model']).name}, {row['dtype']}\n{row['world_size']} x {row['device']}")
        table.add_row(
            daemon.name, model, f"{row['pid']}\n{ranks}", _activity(row), _duration(row.get("uptime")), _end(row),
            str(row.get("restarts", "?")), f"{row['memory_bytes'] / _MIB:.0f} MiB",
        )  # fmt: skip
        if "problem" in row:
            stderr().print(f"{daemon.name}: {row['problem']}", style="yellow")
    stdout().print(table)


def _activity(row: dict[str, Any]) -> str:
    """What the ranks do, in a few words."""
    if row["state"] != "ready" or not row["ranks"]:
        return "nothing loaded" if row["state"] == "stopped" else str(row["state"])
    first, streams = row["ranks"][0], row["streams"]
    if not streams:
        return "idle"
    doing = "no work now" if first["phase"] == "idle" else f"{first['phase']}, chunk {first['chunk'] + 1}"
    return f"{streams} stream{'s' if streams > 1 else ''}:\n{doing}"


def _end(row: dict[str, Any]) -> str:
    """When it ends by itself."""
    left = _duration(row["idle_timeout"] - row.get("idle", 0.0))
    return f"{left} idle" if row["detached"] else "with its\nprogram"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
