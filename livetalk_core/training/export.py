"""From a training checkpoint to a model that loads: published key names, beside the other parts of its model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..errors import OutputError, TrainingError
from ..loading import ModelParts, export_published
from ..loading.atomic_files import unwritable
from ..loading.layout import TRANSFORMER_STEM
from ..loading.meta_module import finish, place
from ..models.transformer import LiveTalkTransformer3DModel
from .methods.stage1 import NETWORK
from .methods.stage2 import STUDENT
from .trainer.checkpoint import read_facts, stored_tensors

PREFIX = "transformer."


def export_model(checkpoint: Path, network: str, parts: ModelParts, folder: Path) -> None:
    """Write a complete model folder with a trained transformer, in layout and number format of the model it began with.

    Where that one has 8 bits, in bf16. Weights are the moving average where the run kept one. The other files are
    linked, or copied across disks.

    Args:
        checkpoint: Folder of one checkpoint.
        network: Name of the network in it.
        parts: The model that the run started from.
        folder: Made by this call.

    Raises:
        OutputError: the folder exists or cannot be written.
        TrainingError: no such network in the checkpoint, or of another model.
    """
    if folder.exists():
        raise OutputError(f"{folder} exists already.", "Choose another name.", file=str(folder))
    dtype = parts.stored_dtype
    if dtype.itemsize == 1:
        # Numbers of 8 bits mean something only with their scales, which training has not kept.
        dtype = torch.bfloat16
    transformer = _filled(checkpoint, network, parts, dtype)
    own_layout = parts.files.kind == "livetalk"
    source = parts.files.folder
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _link_others(source, part, "transformer" if own_layout else TRANSFORMER_STEM)
        export_published(transformer, part / "transformer" if own_layout else part, dtype=dtype)
        os.replace(part, folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _filled(checkpoint: Path, network: str, parts: ModelParts, dtype: torch.dtype) -> LiveTalkTransformer3DModel:
    """A transformer of the model's dimensions with the checkpoint's weights."""
    transformer = parts.transformer()
    expected = set(transformer.state_dict())
    for name, value in averaged_weights(checkpoint, network):
        if name not in expected:
            raise TrainingError(f"{checkpoint} is of another model: it holds {name!r}.", "Give its own model.")
        expected.remove(name)
        place(transformer, name, value, dtype, torch.device("cpu"))
    if expected:
        raise TrainingError(f"{checkpoint} holds no {min(expected)!r} of {network!r}.", "Give its own model.")
    finish(transformer, torch.device("cpu"))
    return transformer


def averaged_weights(checkpoint: Path, network: str) -> Iterator[tuple[str, Tensor]]:
    """A network's averaged weights, or its own where no average was kept, by the transformer's parameter names."""
    prefix = f"{network}.average.{PREFIX}"
    found = False
    for name, value in stored_tensors(checkpoint, prefix):
        found = True
        yield name, value
    if not found:
        yield from stored_tensors(checkpoint, f"{network}.weights.{PREFIX}")


def trained_network(checkpoint: Path) -> str:
    """The network of a checkpoint that is worth exporting.

    Raises:
        TrainingError: the checkpoint cannot be read.
    """
    return STUDENT if read_facts(checkpoint)["run"]["method"]["stage"] == "stage2" else NETWORK


def _link_others(source: Path, folder: Path, left_out: str) -> None:
    """All files of a model folder but those whose path within it begins with `left_out`."""
    for path in _files(source, left_out):
        target = folder / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, target)
        except OSError:
            shutil.copyfile(path, target)


def _files(source: Path, left_out: str) -> Iterable[Path]:
    replaced = {"config.json"} if left_out == TRANSFORMER_STEM else set()
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source).as_posix()
        if path.is_file() and not inside.startswith(left_out) and inside not in replaced:
            yield path
