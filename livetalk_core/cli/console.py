"""How the command line speaks: results on standard output, everything else on standard error, no tracebacks."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec

import typer

from .. import __version__
from ..errors import LiveTalkError

P = ParamSpec("P")
UNEXPECTED, USER_ERROR, BROKEN_PIPE, SIGNAL_BASE, SIGINT = 1, 2, 141, 128, 2
_ISSUES = "the project's issue page"
_PIPE_COLUMNS = 140


def stdout() -> Any:
    """A rich console for results."""
    from rich.console import Console

    terminal = sys.stdout.isatty()
    # Rich takes a pipe for 80 columns wide and cuts names in tables short.
    width = None if terminal or "COLUMNS" in os.environ else _PIPE_COLUMNS
    return Console(highlight=False, soft_wrap=not terminal, width=width)


def stderr() -> Any:
    """A rich console for progress, notes and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def guarded(command: Callable[P, int | None]) -> Callable[P, None]:
    """A command whose failures become a message and an exit code.

    0 success; 1 unexpected, or a check that failed; 2 something the user can put right; 130 and 143 interrupted;
    141 the reader of our output is gone. With `as_json` errors are a JSON object on standard output.
    LIVETALK_DEBUG=1 shows tracebacks.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            with _notes():
                code = command(*args, **kwargs)
            sys.stdout.flush()
        except LiveTalkError as error:
            code = _show_known(error, as_json)
        except KeyboardInterrupt as error:
            code = SIGNAL_BASE + (error.args[0] if error.args else SIGINT)
            _show("interrupted", "Interrupted.", "", as_json)
        except BrokenPipeError:
            code = _leave_pipe()
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or type(error).__module__.startswith(("typer.", "click.")):
                raise
            code = _show_unexpected(error, as_json)
        if code:
            raise typer.Exit(code)

    return wrapper


def _show_known(error: LiveTalkError, as_json: bool) -> int:
    if os.environ.get("LIVETALK_DEBUG") == "1":
        raise error
    _show(error.code, error.message, error.hint, as_json, error.details)
    return USER_ERROR


def _show(
    code: str, message: str, fix: str, as_json: bool, details: Mapping[str, Any] | None = None
) -> None:
    if as_json:
        print_json({"error": {"code": code, "message": message, "fix": fix, "details": dict(details or {})}})
        return
    from rich.text import Text

    console = stderr()
    console.print(Text("error: ", style="bold red") + Text(message, style="red"))
    if fix:
        console.print(Text("fix:   ", style="bold green") + Text(fix))
    log = (details or {}).get("log")
    if log and str(log) not in message + fix:
        console.print(Text("log:   ", style="bold") + Text(str(log)))


def _show_unexpected(error: Exception, as_json: bool) -> int:
    if os.environ.get("LIVETALK_DEBUG") == "1":
        raise error
    log = _write_log(error)
    where = f" The details are in {log}." if log else ""
    _show(
        "unexpected",
        f"Something went wrong that LiveTalk did not foresee ({type(error).__name__}: {str(error)[:300]}).",
        f"Please report it on {_ISSUES} with the output of 'livetalk doctor'.{where}",
        as_json,
    )
    return UNEXPECTED


def _write_log(error: Exception) -> Path | None:
    """The traceback in a file of its own, or None where none can be written."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    trace = "".join(traceback.format_exception(error))
    text = f"livetalk {__version__}, Python {sys.version}\n{trace}"
    for folder in (Path(state) / "livetalk", Path(tempfile.gettempdir())):
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / name
            with open(path, "x", encoding="utf-8") as file:
                file.write(text)
            return path
    return None


def _leave_pipe() -> int:
    """Nobody reads our output any more; the interpreter must not complain about it when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE


class _NoteHandler(logging.Handler):
    """Shows warnings of the core as short notes on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        from rich.text import Text

        event = getattr(record, "event", None)
        if event is None:
            message = record.getMessage()
        else:
            facts = ", ".join(f"{key} {value}" for key, value in event.fields.items())
            message = f"{event.name.replace('_', ' ')} ({facts})"
        stderr().print(Text("note:  ", style="bold yellow") + Text(message))


@contextmanager
def _notes() -> Iterator[None]:
    logger = logging.getLogger("livetalk")
    handler = _NoteHandler(logging.DEBUG if os.environ.get("LIVETALK_DEBUG") == "1" else logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
