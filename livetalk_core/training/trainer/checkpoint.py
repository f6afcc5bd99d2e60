"""Checkpoints: one safetensors file per rank and one JSON file, in a folder that appears whole or not at all.

Every tensor is stored as the rows that a rank holds, with the number of the first and of all rows, so that another
number of ranks can read it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...errors import LiveTalkError, OutputError, TrainingError
from ...loading.atomic_files import require_space, unwritable, write_json, write_safetensors
from .ranks import Ranks
from .sharding import first_row, local

FACTS = "checkpoint.json"
FORMAT = 1
_logger = logging.getLogger("livetalk")


@dataclass(frozen=True)
class Rows:
    """Which rows of a tensor a rank holds."""

    first: int
    shape: tuple[int, ...]


def rows_of(tensor: Tensor) -> Rows:
    """Place of a tensor's local part in the whole."""
    return Rows(first_row(tensor), tuple(tensor.shape))


def save_checkpoint(
    folder: Path, iteration: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], ranks: Ranks, keep: int
) -> Path:
    """Write a checkpoint; all ranks call this. Older ones than the newest `keep` are removed afterwards.

    Raises:
        OutputError: it cannot be written, on this or another rank; what was there before stays.
    """
    target = folder / f"{iteration:07d}"
    part = folder / f".{target.name}.part"
    failure: LiveTalkError | None = None
    try:
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
    except OSError as error:
        failure = unwritable(part, error)
    _agree(ranks, failure, part)
    try:
        _write_rank(part, tensors, ranks)
    except LiveTalkError as error:
        failure = error
    _agree(ranks, failure, part)
    try:
        if ranks.first:
            write_json(part / FACTS, {"format": FORMAT, "world": ranks.world, "iteration": iteration, **facts})
            shutil.rmtree(target, ignore_errors=True)
            os.replace(part, target)
            _forget(folder, keep)
    except LiveTalkError as error:
        failure = error
    except OSError as error:
        failure = unwritable(target, error)
    _agree(ranks, failure, part)
    return target


def _write_rank(part: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
    mine = {name: local(tensor.detach()).cpu() for name, tensor in tensors.items()}
    require_space(part, sum(tensor.nbytes for tensor in mine.values()))
    places = {name: [(rows := rows_of(tensor)).first, *rows.shape] for name, tensor in tensors.items()}
    write_safetensors(part / f"rank_{ranks.rank:05d}.safetensors", mine, {"rows": json.dumps(places)})


def _agree(ranks: Ranks, failure: LiveTalkError | None, part: Path) -> None:
    """Go on only if no rank failed; the half-written folder goes otherwise."""
    if ranks.all_ok(failure is None):
        return
    if ranks.first:
        shutil.rmtree(part, ignore_errors=True)
    raise failure or OutputError(f"Another rank could not write {part.name}.", "Its own message says why.")


def _forget(folder: Path, keep: int) -> None:
    for old in sorted(_candidates(folder))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _candidates(folder: Path) -> list[Path]:
    return [path.parent for path in folder.glob(f"*/{FACTS}") if path.parent.name.isdigit()]


def has_checkpoint(folder: Path) -> bool:
    """Whether a checkpoint was ever completed there; what an interrupted first one leaves is none."""
    return bool(_candidates(folder))


def newest_checkpoint(folder: Path) -> Path:
    """The newest checkpoint whose files can all be read.

    Raises:
        TrainingError: there is none.
    """
    for path in sorted(_candidates(folder), reverse=True):
        try:
            facts = read_facts(path)
            for rank in range(facts["world"]):
                with safe_open(_rank_file(path, rank), "pt"):
                    pass
            return path
        except (TrainingError, SafetensorError, OSError, KeyError) as error:
            _logger.warning("checkpoint %s is damaged (%s); trying the one before", path.name, error)
    raise TrainingError(
        f"There is no checkpoint in {folder}.",
        "Name the folder of a run that has saved one; a new run starts without --resume.",
        file=str(folder),
    )


def read_facts(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint.

    Raises:
        TrainingError: it cannot be read, or is of another format.
    """
    try:
        facts: dict[str, Any] = json.loads((path / FACTS).read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path / FACTS} cannot be read ({error}).", "Use another checkpoint.") from error
    if not isinstance(facts, dict) or not isinstance(facts.get("world", 1), int):
        raise TrainingError(f"{path / FACTS} does not describe a checkpoint.", "Use another checkpoint.")
    if facts.get("format") != FORMAT:
        found = facts.get("format")
        raise TrainingError(f"{path} has format {found!r}, not {FORMAT}.", "Use the version that wrote it.")
    return facts


def load_tensors(path: Path, wanted: Mapping[str, Tensor]) -> None:
    """Fill the tensors in place with what was saved under their names, whatever number of ranks saved it.

    Raises:
        TrainingError: a name or shape differs.
    """
    facts = read_facts(path)
    files = [_rank_file(path, rank) for rank in range(facts["world"])]
    missing = set(wanted)
    for file in files:
        with safe_open(file, "pt") as opened:
            places = json.loads((opened.metadata() or {})["rows"])
            for name in missing & set(places):
                _copy_overlap(name, opened, Rows(places[name][0], tuple(places[name][1:])), wanted[name])
    with safe_open(files[0], "pt") as opened:
        saved = set(opened.keys())
    if saved != missing:
        name = sorted(saved ^ missing)[0]
        raise TrainingError(
            f"{path} is of another model or recipe: {name!r} is {'not in it' if name in missing else 'left over'}.",
            "Continue with the recipe and model that the run was started with.",
        )


def _copy_overlap(name: str, opened: Any, saved: Rows, tensor: Tensor) -> None:
    here = rows_of(tensor)
    if here.shape != saved.shape:
        raise TrainingError(
            f"{name} has shape {list(here.shape)}, the checkpoint's has {list(saved.shape)}.",
            "Continue with the model that the run was started with.",
        )
    mine = local(tensor.detach())
    if not saved.shape:
        mine.copy_(opened.get_tensor(name))
        return
    stored = opened.get_slice(name)
    start = max(here.first, saved.first)
    stop = min(here.first + len(mine), saved.first + stored.get_shape()[0])
    if start < stop:
        mine[start - here.first : stop - here.first].copy_(stored[start - saved.first : stop - saved.first])


def _rank_file(path: Path, rank: int) -> Path:
    return path / f"rank_{rank:05d}.safetensors"


def stored_tensors(path: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The whole tensors of a checkpoint whose names begin with `prefix`, one at a time, named without it."""
    with ExitStack() as stack:
        files = [
            stack.enter_context(safe_open(_rank_file(path, rank), "pt")) for rank in range(read_facts(path)["world"])
        ]
        tables = [json.loads((file.metadata() or {})["rows"]) for file in files]
        for name in (name for name in tables[0] if name.startswith(prefix)):
            shape = tables[0][name][1:]
            parts = [file.get_tensor(name) for file, table in zip(files, tables, strict=True) if name in table]
            # A tensor that is not sharded lies in every file.
            whole = parts[0] if list(parts[0].shape) == shape else torch.cat(parts)
            yield name.removeprefix(prefix), whole
