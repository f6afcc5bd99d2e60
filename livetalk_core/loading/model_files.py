"""Files of a model: errors that name them, sizes, fingerprints and the small ones, without the model libraries."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from ..errors import CheckpointError

MAX_JSON_BYTES = 32 * 1024**2


def checkpoint_error(path: str | Path, problem: str, hint: str = "", **details: Any) -> CheckpointError:
    """An error about one weight or model file, always naming it."""
    return CheckpointError(f"{path}: {problem}.", hint, file=str(path), **details)


def require_regular_file(path: Path) -> int:
    """Size of `path` in bytes; links are followed, everything but a regular file is refused unopened.

    Raises:
        CheckpointError: absent, unreadable, a folder, a pipe or a device.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise checkpoint_error(
            path, f"cannot be read ({_reason(error)})", "Check the path and its permissions."
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise checkpoint_error(path, "is not a regular file", "Give the path of a weight file.")
    return status.st_size


def files_stamp(path: Path) -> str:
    """A fingerprint that changes when the file, or any file below the folder, is replaced; none is read."""
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    sizes = [(each.relative_to(path).as_posix(), each.stat()) for each in files]
    lines = "\n".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in sizes)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises:
        CheckpointError: absent, too large, or not a JSON object.
    """
    size = require_regular_file(path)
    if size > MAX_JSON_BYTES:
        raise checkpoint_error(path, f"has {size:,} bytes, more than {MAX_JSON_BYTES:,}", "Do not trust this file.")
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise checkpoint_error(path, f"is not readable JSON ({error})", "Download or copy the file again.") from error
    if not isinstance(value, dict):
        raise checkpoint_error(path, "does not hold a JSON object", "Download or copy the file again.")
    return value


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
