"""Start a daemon or join the one that is there; end one that does not answer."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from ..errors import ConfigError, DaemonUnavailableError, DeadlineError
from .calls import POLL_SECONDS, Deadline, Poll
from .daemon_config import DaemonConfig, SupervisorConfig
from .process_group import module_environment
from .processes import Rung, is_same_process, signal_same, usable_cores
from .runtime_dir import (
    Endpoint,
    base_directory,
    cannot_start,
    daemon_directories,
    hold_alive,
    is_alive,
    log_directory,
    make_directory,
    read_endpoint,
    require_private,
    socket_path,
    start_lock,
    sweep,
    write_private,
)
from .wire import last_words, redact

START_SECONDS = 30.0
CONNECT_SECONDS = 5.0
RANKS_PER_CORE = 4
"""More would not be ready in time: each imports the model libraries."""
_KILL_SECONDS = 10.0


def connect_or_start(config: DaemonConfig, poll: Poll | None = None) -> socket.socket:
    """A connection to a daemon with this configuration's key, on which the token has been sent.

    `poll` is called while this waits; what it raises ends it.

    Raises:
        ConfigError: more ranks than this machine can run.
        AccessError: the folder for sockets is not private.
        DaemonUnavailableError: the daemon cannot be started.
        DeadlineError: it does not come up in time.
    """
    base = base_directory(config.runtime_root)
    _require_cores(config, base)
    try:
        with start_lock(base, START_SECONDS + CONNECT_SECONDS, poll):
            sweep(base)
            sock = join(base, config.key())
            if sock is None:
                sock = connect(_start(base, config, poll))
            return sock
    except OSError as error:
        raise cannot_start(error, base) from error


def _require_cores(config: DaemonConfig, base: Path) -> None:
    """What runs already may be joined from fewer cores."""
    ranks = config.world_size if config.hosts is None else config.hosts.ranks_per_node
    cores = usable_cores()
    if ranks > RANKS_PER_CORE * cores and config.key() not in {endpoint.key for _, endpoint in living(base)}:
        raise ConfigError(
            f"{ranks} ranks are more than the {cores} processor core(s) of this machine can keep going.",
            f"Start at most {RANKS_PER_CORE * cores}, {RANKS_PER_CORE} on a core.", setting="world_size",
        )  # fmt: skip


def join(base: Path, key: str) -> socket.socket | None:
    """A connection to a living daemon with this key; None if there is none."""
    for directory, endpoint in living(base):
        if endpoint.key == key:
            # One that is just ending refuses; another one is started then.
            with contextlib.suppress(DaemonUnavailableError):
                return connect(directory)
    return None


def living(base: Path) -> list[tuple[Path, Endpoint]]:
    """Folders and endpoints of the daemons that live."""
    found = []
    for directory in daemon_directories(base):
        endpoint = read_endpoint(directory)
        if endpoint is not None and is_alive(directory):
            found.append((directory, endpoint))
    return found


def connect(directory: Path) -> socket.socket:
    """A connection to the daemon of a folder, after folder, socket and token file were checked."""
    endpoint = read_endpoint(directory)
    if endpoint is None:
        raise DaemonUnavailableError("The daemon's folder is not complete.", "Start the daemon again.")
    sock = socket.socket(socket.AF_INET if endpoint.port else socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_SECONDS)
        if endpoint.port:
            sock.connect(("127.0.0.1", endpoint.port))
        else:
            require_private(directory)
            sock.connect(socket_path(directory))
        sock.sendall(bytes.fromhex(endpoint.token))
        sock.settimeout(None)
        return sock
    except OSError as error:
        sock.close()
        raise DaemonUnavailableError(
            f"The daemon does not answer ({error.strerror or 'timed out'}).", "Start it again."
        ) from None


def force_stop(directory: Path, patience: float = 5.0) -> Rung:
    """End the daemon of a folder that does not answer; an innocent process with its number is left alone.

    Args:
        directory: Its folder; removed with it.
        patience: Seconds from SIGTERM to SIGKILL.

    Returns:
        The rung that ended it; "" where there was none, or none that could be ended.
    """
    endpoint = read_endpoint(directory)
    if endpoint is None or not is_alive(directory):
        return ""
    rungs: tuple[tuple[Rung, signal.Signals, float], ...] = (
        ("sigterm", signal.SIGTERM, patience), ("sigkill", signal.SIGKILL, _KILL_SECONDS),
    )  # fmt: skip
    for rung, number, seconds in rungs:
        signal_same(endpoint.pid, endpoint.started, number)
        ends = time.monotonic() + seconds
        while is_same_process(endpoint.pid, endpoint.started):
            if time.monotonic() >= ends:
                break
            time.sleep(0.05)
        else:
            if not is_alive(directory):
                shutil.rmtree(directory, ignore_errors=True)
            return rung
    return ""


def _start(base: Path, config: DaemonConfig, poll: Poll | None) -> Path:
    """Start a supervisor; returns its folder when it listens."""
    directory = make_directory(base)
    log = log_directory(base) / f"{directory.name}-supervisor.log"
    alive = hold_alive(directory)
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    settings = SupervisorConfig(daemon=config, directory=str(directory), alive=alive, ready=ready_write)
    try:
        path = directory / "supervisor.json"
        write_private(path, json.dumps(msgspec.to_builtins(settings)).encode())
        process = subprocess.Popen(
            [sys.executable, "-m", "livetalk_core.daemon.supervisor", "--config", str(path)],
            cwd=directory, env=module_environment(), start_new_session=True, pass_fds=(alive, ready_write),
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
        os.close(ready_write)
        ready_write = -1
        # Somebody has to take note of its end, however long it lives.
        threading.Thread(target=process.wait, name="livetalk-daemon-reaper", daemon=True).start()
        _wait_until_ready(process, ready_read, log, poll or (lambda: None))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        if not log.stat().st_size:
            log.unlink()
        raise
    finally:
        for descriptor in (alive, ready_read, ready_write, output):
            if descriptor >= 0:
                os.close(descriptor)
    return directory


def _wait_until_ready(process: subprocess.Popen[bytes], ready: int, log: Path, poll: Poll) -> None:
    """Until the supervisor says that it listens; it is ended if it does not, or if nobody wants it any more."""
    deadline = Deadline(START_SECONDS)
    try:
        while not (answered := bool(select.select([ready], [], [], POLL_SECONDS)[0])) and deadline.left:
            poll()
    except BaseException:
        process.kill()
        raise
    if answered and os.read(ready, 1):
        return
    process.kill()
    if not answered:
        raise DeadlineError(f"The daemon was not ready after {START_SECONDS:g} s.", "Is the machine overloaded?")
    words = last_words(log.read_text("utf-8", "replace")).rstrip(".")
    wrote = f"; it wrote last: {words}" if words else " without a word, as on a full disk"
    raise DaemonUnavailableError(
        f"The daemon ended while it started{wrote}.", f"Its log is {redact(str(log))}.", log=redact(str(log))
    )
