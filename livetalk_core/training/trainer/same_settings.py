"""What is continued must have been begun with the same settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...errors import TrainingError


def require_same(path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], unknown: Iterable[str] = ()) -> None:
    """Raise TrainingError with the name of the first setting that differs.

    Args:
        path: What was written, for the message.
        saved: Settings that it was written with, from JSON.
        wanted: Settings now, plain values.
        unknown: Names that do not count where `saved` has none.
    """
    theirs, ours = _flat(saved), _flat(msgspec.json.decode(msgspec.json.encode(wanted)))
    for key in sorted((ours.keys() | theirs.keys()) - (set(unknown) - theirs.keys())):
        if ours.get(key) != theirs.get(key):
            raise TrainingError(
                f"{path} was written with {key} = {theirs.get(key)!r}, this run has {ours.get(key)!r}.",
                "Continue with the settings it was started with, or start anew in another folder.",
            )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    parts = [_flat(inner, f"{path}.{key}" if path else key) for key, inner in value.items()]
    return {key: inner for part in parts for key, inner in part.items()}
