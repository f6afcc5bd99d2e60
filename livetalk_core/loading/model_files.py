"""Which files make up a checkpoint, and the small ones among them, read without the model libraries."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
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


def find_shards(folder: Path, stem: str) -> list[Path]:
    """Files of a checkpoint: `stem.safetensors`, or the shards that `stem.safetensors.index.json` names.

    Without an index, shards named `stem-00001-of-0000N.safetensors` are accepted if all N are there. An empty
    list means none.

    Raises:
        CheckpointError: an index that names absent or outside files, or an incomplete set of shards.
    """
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        return _shards_of_index(index)
    single = folder / f"{stem}.safetensors"
    if single.exists():
        return [single]
    shards = sorted(folder.glob(f"{stem}-[0-9]*-of-[0-9]*.safetensors"))
    if shards:
        _require_complete(folder, shards)
    return shards


def _shards_of_index(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise checkpoint_error(index, "has no weight_map", "Download or copy the file again.")
    names = dict.fromkeys(table.values())
    for name in names:
        # A plain file name cannot leave the folder, whatever the platform's separators are.
        if not isinstance(name, str) or not name.endswith(".safetensors") or any(c in name for c in "/\\:\0"):
            raise checkpoint_error(
                index,
                f"points at {name!r}, which is not a .safetensors file beside it",
                "Do not trust this file.",
            )
    paths = [index.parent / name for name in names]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise checkpoint_error(
            index,
            f"names {len(paths)} files, {len(missing)} of which are absent: {', '.join(missing[:5])}",
            "Complete the download.",
        )
    _require_listed(index, table, paths)
    return paths


def _require_listed(index: Path, table: Mapping[str, str], paths: Sequence[Path]) -> None:
    # Late: number formats need torch, and most folders have no such list.
    from .safetensors_header import read_header

    held = {(key, path.name) for path in paths for key in read_header(path).entries}
    for key, name in table.items():
        if (key, name) not in held:
            raise checkpoint_error(
                index, f"says {name} holds {key!r}, but it does not", "Download the model again.", key=key
            )


def _require_complete(folder: Path, shards: Sequence[Path]) -> None:
    totals = {path.stem.rpartition("-of-")[2] for path in shards}
    if len(totals) != 1 or int(next(iter(totals))) != len(shards):
        raise checkpoint_error(
            folder,
            f"holds an incomplete set of shards ({', '.join(path.name for path in shards[:5])})",
            "Complete the download.",
        )


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
