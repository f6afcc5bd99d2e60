"""Private folders for sockets: found or made, checked before anything in them is trusted, swept when stale."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..config import Settings
from ..errors import AccessError, ConfigError, DaemonUnavailableError, DeadlineError
from .daemon_config import DaemonConfig
from .wire import redact

MAX_SOCKET_PATH = 107  # bytes; sun_path holds 108 with its final zero
_FOLDER = re.compile(r"[0-9a-f]{8}")
_YOUNG = 30.0  # seconds in which a folder may still be waiting for its lock file
_KEPT_LOGS = 40


class Endpoint(Settings, frozen=True, kw_only=True):
    """How to reach a daemon, which process it is and what it runs; lies in its folder, for its user only."""

    key: str
    token: str
    pid: int
    started: int
    port: int = 0
    daemon: DaemonConfig = DaemonConfig()


def base_directory(root: str | None = None) -> Path:
    """The user's own folder for daemons, made if it is missing.

    Raises:
        AccessError: it belongs to somebody else, is open to others, or is not a folder.
        DaemonUnavailableError: it cannot be made.
    """
    if root is not None:
        base = Path(root)
    else:
        offered = os.environ.get("XDG_RUNTIME_DIR", "")
        if offered and os.path.isabs(offered) and _is_private(Path(offered)):
            base = Path(offered) / "livetalk"
        else:
            base = Path(tempfile.gettempdir()) / f"livetalk-{os.getuid()}"
    try:
        with contextlib.suppress(FileExistsError):
            base.mkdir(mode=0o700)
    except OSError as error:
        raise cannot_start(error, base) from error
    require_private(base)
    return base


def cannot_start(error: OSError, folder: Path) -> DaemonUnavailableError:
    """Files or processes of a daemon cannot be made: a full or read-only disk, no more processes."""
    return DaemonUnavailableError(
        f"The model's processes cannot be started in {redact(str(folder))} ({error.strerror or error}).",
        "Make room there, or name another folder in XDG_RUNTIME_DIR or TMPDIR.",
    )


def require_private(path: Path, *, folder: bool = True) -> None:
    """Raise AccessError unless `path` is a folder (or file) of this user that nobody else can use."""
    if not _is_private(path, folder=folder):
        kind = "folder" if folder else "file"
        raise AccessError(
            f"{redact(str(path))} is not a private {kind} of this user.",
            f"Remove it, or make it yours alone (chmod {'700' if folder else '600'}).", path=str(path),
        )  # fmt: skip


def make_directory(base: Path) -> Path:
    """A new folder for one daemon."""
    for _ in range(100):
        path = base / os.urandom(4).hex()
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        socket_path(path)
        return path
    raise AccessError(f"No new folder can be made in {redact(str(base))}.", "Remove old ones.")


def socket_path(directory: Path) -> str:
    """The socket's path; ConfigError if the system cannot take it."""
    path = str(directory / "s")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ConfigError(
            f"The socket path {redact(path)} is longer than {MAX_SOCKET_PATH} bytes.",
            "Set XDG_RUNTIME_DIR or TMPDIR to a shorter folder.",
        )
    return path


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its user can read, complete or not at all."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read_endpoint(directory: Path) -> Endpoint | None:
    """How to reach the daemon of a folder; None if it has not said so yet, or wrote something else."""
    path = directory / "endpoint.json"
    try:
        require_private(directory)
        require_private(path, folder=False)
        return msgspec.json.decode(path.read_bytes(), type=Endpoint)
    except (OSError, AccessError, msgspec.MsgspecError, ValueError):
        return None


def hold_alive(directory: Path) -> int:
    """Descriptor of the folder's locked file: who has it open keeps the folder from being swept."""
    descriptor = os.open(directory / "alive", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    # Nobody else holds it; somebody who looks whether it is held lets go at once.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def is_alive(directory: Path) -> bool:
    """Whether a process holds the folder's lock; a number that another process got by chance does not count."""
    try:
        descriptor = os.open(directory / "alive", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        with contextlib.suppress(OSError):
            return time.time() - directory.lstat().st_mtime < _YOUNG
        return False
    try:
        # Shared, so that two who look at the same time do not take each other for the daemon.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def daemon_directories(base: Path) -> list[Path]:
    """The folders of daemons, living and dead."""
    found = [path for path in base.iterdir() if _FOLDER.fullmatch(path.name) and _is_private(path)]
    return sorted(found)


def sweep(base: Path) -> int:
    """Remove the folders of daemons that are gone, and old logs; returns how many folders."""
    stale = [path for path in daemon_directories(base) if not is_alive(path)]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    for path in logs_by_age(base)[:-_KEPT_LOGS]:
        path.unlink(missing_ok=True)
    return len(stale)


def logs_by_age(base: Path) -> list[Path]:
    """The logs of all daemons, the newest last; a daemon that ends in order removes its own meanwhile."""
    aged = []
    for path in (base / "logs").glob("*.log") if _is_private(base / "logs") else ():
        with contextlib.suppress(FileNotFoundError):
            aged.append((path.lstat().st_mtime, path))
    return [path for _, path in sorted(aged)]


def log_directory(base: Path) -> Path:
    """Folder of the logs of daemons that met a fault, made if it is missing."""
    logs = base / "logs"
    with contextlib.suppress(FileExistsError):
        logs.mkdir(mode=0o700)
    require_private(logs)
    return logs


@contextmanager
def start_lock(base: Path, timeout: float, poll: Callable[[], None] | None = None) -> Iterator[None]:
    """Only one program at a time starts or joins a daemon; that takes a second, loading comes later.

    `poll` is called while this waits; what it raises ends it.

    Raises:
        DeadlineError: somebody else has been starting one for `timeout` seconds.
    """
    ends = time.monotonic() + timeout
    descriptor = os.open(base / "start.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= ends:
                    raise DeadlineError(
                        f"Another program has been starting a daemon for {timeout:g} s.", "Try again."
                    ) from None
                if poll is not None:
                    poll()
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _is_private(path: Path, *, folder: bool = True) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISDIR if folder else stat.S_ISREG
    return kind(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
