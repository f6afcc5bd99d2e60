"""Files that appear whole or not at all: written beside the target, synced, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from pathlib import Path
from types import TracebackType

from ..errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# A file name may have 255 bytes; the marks around the shortened stem need about 30 of them.
_MAX_STEM = 60
_RECORDING = re.compile(r"[^.].*\.[0-9a-f]{8}\.partial\.(mp4|mkv)", re.IGNORECASE)

_HINTS = {
    errno.ENOSPC: "The disk is full: free some space or choose another folder.",
    errno.EDQUOT: "Your disk quota is used up: free some space or choose another folder.",
    errno.EFBIG: "The file would exceed the size limit of this system or session: choose another folder.",
    errno.EACCES: "You may not write there: choose another folder or change its permissions.",
    errno.EPERM: "You may not write there: choose another folder or change its permissions.",
    errno.EROFS: "That file system is read-only: choose another folder.",
    errno.ENAMETOOLONG: "The file name is too long: choose a shorter one.",
    errno.ENOENT: "The folder is gone: create it and try again.",
}


def output_error(path: str | os.PathLike[str], error: BaseException) -> OutputError:
    """Turn an operating-system (or FFmpeg) error about an output into an `OutputError` with the remedy."""
    number = getattr(error, "errno", None)
    reason = os.strerror(number) if isinstance(number, int) and number in errno.errorcode else str(error)
    hint = (
        _HINTS.get(number, "Choose another output path and try again.")
        if number
        else "Choose another output path."
    )
    return OutputError(f"Cannot write {os.fspath(path)}: {reason}.", hint, file=os.fspath(path), errno=number)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """The folder for results, made with those above it if needed.

    Raises:
        OutputError: there is a file of that name, or it may not be made there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise OutputError(f"Cannot make the folder {folder}: a file is in its way.", "Choose another name.") from error
    except OSError as error:
        raise output_error(folder, error) from error
    return folder


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Find out before any work starts whether a file can be made at `path`; leaves nothing behind.

    Returns:
        The absolute path with symbolic links followed.

    Raises:
        OutputError: no name, a folder, a device, the parent folder missing or not writable.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise OutputError(
            f"The output path {text!r} is not a file name.", "Give a path such as talk.mp4.", file=text
        )
    target = Path(os.path.realpath(text))
    try:
        _check_target(text, target)
        temporary = _create_beside(target)
        temporary.unlink()
    except OSError as error:
        raise output_error(text, error) from error
    return target


def _check_target(text: str, target: Path) -> None:
    parent = target.parent
    if not parent.exists():
        raise OutputError(
            f"Cannot write {text}: the folder {parent} does not exist.",
            f"Create it first: mkdir -p '{parent}'.",
            file=text,
        )
    if not parent.is_dir():
        raise OutputError(
            f"Cannot write {text}: {parent} is not a folder.", "Choose another path.", file=text
        )
    if target.is_dir():
        raise OutputError(
            f"The output {text} is a folder, not a file.",
            "Name a file in it.",
            file=text,
        )
    if target.exists():
        if not stat.S_ISREG(target.stat().st_mode):
            raise OutputError(f"The output {text} is a device or pipe.", "Name an ordinary file.", file=text)
        # A rename would replace it even so, but a file made read-only is meant to stay.
        if not os.access(target, os.W_OK):
            raise OutputError(
                f"The file {text} exists and is read-only.", "Choose another name or remove it.", file=text
            )


def _create_beside(target: Path, hidden: bool = True) -> Path:
    """Make an empty, uniquely named file in the folder of `target` that keeps its suffix."""
    while True:
        stem = f".{target.stem[:_MAX_STEM]}" if hidden else target.stem[:_MAX_STEM]
        name = f"{stem}.{secrets.token_hex(4)}.partial{target.suffix}"
        temporary = target.with_name(name)
        try:
            # O_EXCL refuses planted links; mode 0o666 leaves the permissions to the user's umask.
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return temporary


def _sync(path: Path) -> None:
    """Force a file's (or folder's) content to the disk; this is where a full disk shows at the latest."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Mark a file as being written for as long as this process lives; None where locks are not to be had."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def leftover_recordings(folder: str | os.PathLike[str]) -> list[Path]:
    """Recordings in a folder whose programs were killed, in order of their names.

    None where the system has no locks to tell them from those being written.
    """
    if fcntl is None or not os.path.isdir(folder):
        return []
    try:
        found = sorted(path for path in Path(folder).iterdir() if _RECORDING.fullmatch(path.name))
    except OSError:  # one may write there, but not look
        return []
    return [path for path in found if _is_abandoned(path)]


def _is_abandoned(path: Path) -> bool:
    assert fcntl is not None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False  # its owner locks it before the first byte, and must not be kept from that
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_nlink > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)


class AtomicFile:
    """A temporary file beside `path` that replaces it on `commit` and vanishes on `discard`.

    As a context manager it commits on success and discards on any exception.

    Args:
        path: The final file; an existing one stays intact until `commit`.
        recording: The temporary file is worth keeping if this program is killed: it is not hidden, and
            `leftover_recordings` finds it.

    Raises:
        OutputError: as `check_writable`.
    """

    def __init__(self, path: str | os.PathLike[str], *, recording: bool = False) -> None:
        self.path = check_writable(path)
        self._shown = os.fspath(path)
        self._open = True
        try:
            self.temporary = _create_beside(self.path, hidden=not recording)
            self._lock = _lock(self.temporary) if recording else None
        except OSError as error:
            raise output_error(self._shown, error) from error

    def commit(self) -> None:
        """Sync the temporary file and give it the final name; a second call does nothing."""
        if not self._open:
            return
        try:
            _sync(self.temporary)
            os.replace(self.temporary, self.path)
            self._open = False
            if os.name == "posix":
                # The file is there: a folder that cannot be synced, or not be read, takes nothing from it.
                with contextlib.suppress(OSError):
                    _sync(self.path.parent)
        except OSError as error:
            self.discard()
            raise output_error(self._shown, error) from error
        self._unlock()

    def discard(self) -> None:
        """Remove the temporary file; the final name is left as it was."""
        if self._open:
            self._open = False
            # Locked until it is gone: nobody is to take it for one that was left behind.
            try:
                self.temporary.unlink(missing_ok=True)
            finally:
                self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> Path:
    """Write a whole file (text as UTF-8) atomically.

    Returns:
        The absolute path written.

    Raises:
        OutputError: the path cannot be written or the disk is full; an old file is then still intact.
    """
    with AtomicFile(path) as file:
        try:
            file.temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        except OSError as error:
            raise output_error(path, error) from error
    return file.path
