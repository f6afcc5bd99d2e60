"""`livetalk daemon`: ranks that stay loaded between videos; start, look, stop, read their logs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DaemonError, DaemonUnavailableError
from .console import UNEXPECTED, guarded, print_json, stderr, stdout
from .parsing import (
    ATTENTION_HELP,
    DEVICE_HELP,
    DEVICES_HELP,
    DTYPE_HELP,
    JSON_HELP,
    MODEL_HELP,
    model_name,
    parse_devices,
)

if TYPE_CHECKING:
    from ..daemon.messages import StatsReport
    from ..daemon.registry import RunningDaemon
    from ..production import ModelFacts

daemon_app = typer.Typer(
    name="daemon",
    help="Keep a model loaded on one or more ranks (processes, one per GPU) between videos.",
    epilog="'livetalk generate --world-size N' with the same model, ranks and number format joins a daemon that runs,"
    " and starts one of its own where none does.",
    no_args_is_help=True,
)
_NAME_HELP = "The daemon, as 'livetalk daemon status' names it; the beginning of the name is enough."
_RUNGS = {
    "": "was gone already", "message": "stopped when asked", "sigterm": "did not answer, stopped by SIGTERM",
    "sigkill": "did not answer, stopped by SIGKILL",
}  # fmt: skip
_MIB = 2**20
_FOLLOW_SECONDS = 0.2


@daemon_app.command()
@guarded
def start(
    world_size: Annotated[int, typer.Option(help="Number of ranks: processes, one per GPU.")] = 1,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    devices: Annotated[str | None, typer.Option(help=DEVICES_HELP, show_default="the first ones")] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    attention: Annotated[str, typer.Option(help=ATTENTION_HELP)] = "auto",
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the model.")] = False,
    idle_timeout: Annotated[float, typer.Option(help="Minutes without work after which it ends by itself.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Start a daemon, load the model, and leave it running.

    It ends after its idle timeout, by 'livetalk daemon stop', or with the machine.
    """
    from ..daemon.daemon_config import DaemonConfig
    from ..daemon.registry import stop_daemon
    from ..loading.describe import describe_model
    from ..production import VideoRequest, daemon_config

    request = VideoRequest(
        audio="",
        output=Path(),
        model=model_name(model),
        device=device,
        dtype=dtype,
        compile=compile_model,
        world_size=world_size,
        devices=parse_devices(devices, world_size),
        attention=attention,
        detached=True,
        daemon=DaemonConfig(idle_timeout=idle_timeout * 60),
    )
    describe_model(request.model)
    key = daemon_config(request).key()
    same = _with_key(key)
    for other in same:
        if not other.config.detached:
            raise DaemonUnavailableError(
                f"The daemon {other.name} has this model, and ends with the program that started it.",
                "Wait until that program has ended, or stop it: livetalk daemon stop " + other.name,
            )
    try:
        facts = _load(request, quiet=as_json)
    except BaseException:
        # One that did not get as far as its model is of no use to anybody.
        for unfinished in [] if same else _with_key(key):
            stop_daemon(unfinished)
        raise
    running = _with_key(key)[0]
    if as_json:
        print_json({"daemon": running.name, "joined": bool(same), **_plain(running)})
    else:
        _say_ready(running, facts, joined=bool(same))


@daemon_app.command()
@guarded
def status(as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """Show the daemons that run: model, ranks, what they do, how long they live, memory."""
    from ..daemon.registry import running_daemons

    daemons = running_daemons()
    if as_json:
        print_json({"daemons": [{"daemon": daemon.name, **_plain(daemon)} for daemon in daemons]})
    elif not daemons:
        stdout().print("No daemon runs.")
    else:
        _show(daemons)


@daemon_app.command()
@guarded
def stop(
    name: Annotated[
        str | None, typer.Argument(help=_NAME_HELP, metavar="[DAEMON]", show_default="all of them")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> int:
    """Stop one daemon, or all: by a message, by signals where it does not answer.

    Exit code 1 if one does not end.
    """
    from ..daemon.registry import find_daemons, stop_daemon

    results: dict[str, str] = {}
    failed = False
    for daemon in find_daemons(name):
        try:
            results[daemon.name] = _RUNGS[stop_daemon(daemon)]
        except DaemonError as error:
            results[daemon.name], failed = str(error), True
    if as_json:
        print_json({"stopped": results})
    elif not results:
        stdout().print("No daemon runs.")
    else:
        for each, how in results.items():
            stdout().print(f"{each}  {how}")
    return UNEXPECTED if failed else 0


@daemon_app.command()
@guarded
def logs(
    name: Annotated[
        str | None, typer.Argument(help=_NAME_HELP, metavar="[DAEMON]", show_default="the newest")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Lines from the end of each file.")] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on showing what is written, until Ctrl-C.")
    ] = False,
) -> None:
    """Show where a daemon's logs are and how they end; those of one that met a fault stay when it is gone."""
    from ..daemon.registry import logs as log_files

    files = log_files(name)
    if not files:
        stderr().print("No logs: no such daemon runs, and none has met a fault.")
    ends = [_print_tail(path, lines) for path in files]
    try:
        while follow and files:
            time.sleep(_FOLLOW_SECONDS)
            ends = [_print_more(path, end) for path, end in zip(files, ends, strict=True)]
    except KeyboardInterrupt:
        return


def _with_key(key: str) -> list[RunningDaemon]:
    from ..daemon.registry import running_daemons

    return [daemon for daemon in running_daemons() if daemon.endpoint.key == key]


def _load(request: Any, quiet: bool) -> ModelFacts:
    """Start or join the daemon and load its model; what it says is shown as for a video."""
    from ..production import make_backend
    from ..production.backend import Watch
    from .progress import ProgressLine

    backend = make_backend(request)
    try:
        with ProgressLine(quiet=quiet) as progress:
            return backend.load(Watch(progress))
    finally:
        backend.close()


def _say_ready(daemon: RunningDaemon, facts: ModelFacts, joined: bool) -> None:
    console = stdout()
    word = "Already there:" if joined else "Ready:"
    console.print(
        f"[green]{word}[/] daemon {daemon.name}, {facts.name} on {facts.world_size} x {facts.device} in {facts.dtype}, "
        f"processes {', '.join(map(str, facts.worker_pids))}"
    )
    console.print(f"Use it with: livetalk generate --world-size {facts.world_size} ...")
    console.print(f"It ends after {daemon.config.idle_timeout / 60:g} idle minutes, or by: livetalk daemon stop")


def _stats(daemon: RunningDaemon) -> StatsReport | DaemonError:
    try:
        return daemon.stats()
    except DaemonError as error:
        return error


def _plain(daemon: RunningDaemon) -> dict[str, Any]:
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


def _show(daemons: Sequence[RunningDaemon]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "daemon", "model, ranks", "processes", "does", "up", "ends", "restarts", "memory", box=None, pad_edge=False
    )
    for daemon in daemons:
        row = _plain(daemon)
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


def _print_tail(path: Path, lines: int) -> int:
    """Print a file's last lines under its path; where they end, in bytes."""
    data = path.read_bytes()
    stdout().print(str(path), style="bold")
    tail = data.decode("utf-8", "replace").splitlines()[-lines:] if lines else []
    sys.stdout.write("".join(f"{line}\n" for line in tail))
    sys.stdout.flush()
    return len(data)


def _print_more(path: Path, end: int) -> int:
    """Print what was written to a file since; a daemon that ends in good order takes its logs along."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(end if size >= end else 0)
            data = file.read()
            end = file.tell()
    except FileNotFoundError:
        return end
    if data:
        sys.stdout.write(data.decode("utf-8", "replace"))
        sys.stdout.flush()
    return end
