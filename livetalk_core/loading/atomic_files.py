"""JSON and safetensors files that appear whole or not at all, and room for them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..errors import OutputError
from ..media.atomic_file import AtomicFile, output_error

_SPARE_BYTES = 16 * 1024**2


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a temporary name beside `target`; on success the file there becomes `target`, else it is removed.

    Raises:
        OutputError: the disk is full or the place cannot be written.
    """
    with AtomicFile(target) as file:
        try:
            yield file.temporary
        except OSError as error:
            raise unwritable(target, error) from error


def unwritable(target: Path, error: Exception) -> OutputError:
    """The error for a file that could not be written."""
    # safetensors tells the operating system's reason in words only.
    full = isinstance(error, SafetensorError) and os.strerror(errno.ENOSPC) in str(error)
    return output_error(target, OSError(errno.ENOSPC, "") if full else error)


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what cannot be finished.

    Raises:
        OutputError: less than `needed` bytes free on the disk of `folder`.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise unwritable(folder, error) from error
    if free < needed + _SPARE_BYTES:
        raise OutputError(
            f"{folder} has {free:,} bytes free, {needed:,} are needed.",
            "Free some space or choose another place.",
            file=str(folder),
            free_bytes=free,
            needed_bytes=needed,
        )


def write_json(target: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    with replacing(target) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_safetensors(
    target: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as one safetensors file, whole or not at all; see `save_tensors`."""
    with replacing(target) as temporary:
        save_tensors(temporary, tensors, metadata)


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as one safetensors file; tensors that share memory are written as independent ones.

    Raises:
        OutputError: the file cannot be written.
    """
    seen: set[int] = set()
    independent: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        pointer = tensor.untyped_storage().data_ptr()
        alone = tensor.is_contiguous() and pointer not in seen and tensor.untyped_storage().nbytes() == tensor.nbytes
        seen.add(pointer)
        independent[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
    try:
        save_file(independent, str(path), metadata=dict(metadata or {}))
    except (SafetensorError, OSError) as error:
        raise unwritable(path, error) from error
