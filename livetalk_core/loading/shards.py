"""Weights in one file or many: which files belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .model_files import checkpoint_error, read_json

_NUMBERS = re.compile(r"-([0-9]+)-of-([0-9]+)$")


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
    parts = [_NUMBERS.search(path.stem) for path in shards]
    numbers = sorted((int(part[2]), int(part[1])) for part in parts if part)
    if numbers != [(len(shards), number + 1) for number in range(len(shards))]:
        raise checkpoint_error(
            folder,
            f"holds an incomplete set of shards ({', '.join(path.name for path in shards[:5])})",
            "Complete the download.",
        )
