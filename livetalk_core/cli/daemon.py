"""`livetalk daemon`: ranks that stay loaded between videos; start, look, stop, read their logs."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import DaemonError, DaemonUnavailableError
from .console import UNEXPECTED, guarded, print_json, stderr, stdout
from .daemon_start import start
from .daemon_table import plain, show
from .options import Json

daemon_app = typer.Typer(
    name="daemon",
    help="Keep a model loaded on one or more ranks (processes, one per GPU) between videos.",
    epilog="'livetalk generate --world-size N' with the options of 'daemon start' joins a daemon that runs,"
    " and starts one of its own where none does.",
    no_args_is_help=True,
)
_NAME_HELP = "The daemon, as 'livetalk daemon status' names it; the beginning of the name is enough."
_RUNGS = {
    "": "was gone already", "message": "stopped when asked", "sigterm": "did not answer, stopped by SIGTERM",
    "sigkill": "did not answer, stopped by SIGKILL",
}  # fmt: skip
_FOLLOW_SECONDS = 0.2


@daemon_app.callback()
@guarded
def _require_linux() -> None:
    if not sys.platform.startswith("linux"):
        raise DaemonUnavailableError(f"Daemons need Linux; this is {sys.platform}.", "Leave --world-size out.")


daemon_app.command()(start)


@daemon_app.command()
@guarded
def status(as_json: Json = False) -> None:
    """Show the daemons that run: model, ranks, what they do, how long they live, memory."""
    from ..daemon.registry import running_daemons

    daemons = running_daemons()
    if as_json:
        print_json({"daemons": [{"daemon": daemon.name, **plain(daemon)} for daemon in daemons]})
    elif not daemons:
        stdout().print("No daemon runs.")
    else:
        show(daemons)


@daemon_app.command()
@guarded
def stop(
    name: Annotated[
        str | None, typer.Argument(help=_NAME_HELP, metavar="[DAEMON]", show_default="all of them")
    ] = None,
    as_json: Json = False,
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
        bool, typer.Option("--follow", "-f", help="Go on showing what is written, until the daemon ends or Ctrl-C.")
    ] = False,
) -> None:
    """Show where a daemon's logs are and how they end; those of one that met a fault stay when it is gone."""
    from ..daemon.registry import logs as log_files
    from ..daemon.registry import still_writes

    files = log_files(name)
    if not files:
        stderr().print("No logs: no such daemon runs, and none has met a fault.")
    ends = [_print_tail(path, lines) for path in files]
    try:
        alive = follow and bool(files)
        while alive:
            alive = still_writes(files[0])
            ends = [_print_more(path, end) for path, end in zip(files, ends, strict=True)]
            time.sleep(_FOLLOW_SECONDS if alive else 0)
        if follow and files:
            stderr().print("The daemon has ended.")
    except KeyboardInterrupt:
        return


def _print_tail(path: Path, lines: int) -> int:
    """Print a file's last lines under its path; where they end, in bytes."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # its daemon ended in good order meanwhile
        return 0
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
