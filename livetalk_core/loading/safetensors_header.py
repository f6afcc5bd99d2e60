"""Headers of weight files, verified before a byte of weights is allocated (faults 34 and 35)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import torch

from .model_files import checkpoint_error, require_regular_file

MAX_HEADER_BYTES = 100 * 1024**2
MAX_DIMENSIONS = 8
MAX_TENSORS = 65_536
METADATA_KEY = "__metadata__"

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Number formats a weight file may hold; all others are refused."""

# First bytes of files that often carry the wrong suffix, what they are, and what helps.
_MAGIC: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    (
        (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "a Python pickle (a PyTorch .pth/.bin file), not safetensors",
        "A pickle can run code and is never opened here. Give it its true suffix; run `livetalk convert`.",
    ),
    (
        (b"version https://git-lfs",),
        "a git-lfs pointer, not the weights themselves",
        "Fetch the weights (`git lfs pull`) or download the file itself.",
    ),
    ((b"<!DOCTYPE", b"<!doctype", b"<html"), "a web page, not weights", "Download the file itself."),
    ((b"GGUF",), "a GGUF file, not safetensors", "Use the safetensors version of these weights."),
)


class _HeaderEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(max_length=MAX_DIMENSIONS)]
    data_offsets: tuple[Annotated[int, msgspec.Meta(ge=0)], Annotated[int, msgspec.Meta(ge=0)]]


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as its file's header describes it; offsets count from the end of the header."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class WeightFile:
    """A weight file whose header was verified.

    Attributes:
        path: The file.
        size: Bytes of the whole file.
        digest: sha256 of the header.
        entries: Tensor name -> where and what it is, in file order.
        metadata: Free text the writer left.
    """

    path: Path
    size: int
    digest: str
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]


def read_header(path: Path) -> WeightFile:
    """Read and verify the header of a safetensors file without touching its weights.

    Raises:
        CheckpointError: not safetensors, truncated, or a header that describes impossible tensors.
    """
    size = require_regular_file(path)
    if size == 0:
        raise checkpoint_error(path, "is empty", "Download or copy the file again.")
    try:
        with open(path, "rb") as file:
            start = file.read(32)
            length = _header_length(path, start, size)
            file.seek(8)
            header = file.read(length)
    except OSError as error:
        reason = error.strerror or str(error)
        raise checkpoint_error(path, f"cannot be read ({reason})", "Check the disk and permissions.") from error
    if len(header) != length:
        raise checkpoint_error(path, "ends inside its header", "The file is truncated; download or copy it again.")
    entries, metadata = _parse(path, header)
    _check_layout(path, entries, size - 8 - length)
    return WeightFile(path, size, hashlib.sha256(header).hexdigest(), entries, metadata)


def _refuse_other_formats(path: Path, start: bytes) -> None:
    for magics, what, hint in _MAGIC:
        if start.startswith(magics):
            raise checkpoint_error(path, f"is {what}", hint)


def _header_length(path: Path, start: bytes, size: int) -> int:
    length = int.from_bytes(start[:8], "little")
    is_json = start[8:9] == b"{"
    if not is_json or 8 + length > size:
        # Only now: the length of a true header may begin with the same bytes as a pickle.
        _refuse_other_formats(path, start)
    if not is_json:
        raise checkpoint_error(path, "is not a safetensors file", "Use the safetensors version of these weights.")
    if length > MAX_HEADER_BYTES:
        raise checkpoint_error(
            path,
            f"declares a header of {length:,} bytes, more than {MAX_HEADER_BYTES:,}",
            "Do not trust this file.",
        )
    if 8 + length > size:
        raise checkpoint_error(
            path,
            f"declares a header of {length:,} bytes but holds {size:,}",
            "The file is truncated; download or copy it again.",
        )
    return length


def _parse(path: Path, header: bytes) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    hint = "The file is damaged; download or copy it again."
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise checkpoint_error(path, f"has an unreadable header ({error})", hint) from error
    if len(raw) > MAX_TENSORS:
        raise checkpoint_error(path, f"describes {len(raw):,} tensors, more than {MAX_TENSORS:,}", hint)
    entries: dict[str, TensorEntry] = {}
    metadata: dict[str, str] = {}
    for key, value in raw.items():
        try:
            if key == METADATA_KEY:
                metadata = msgspec.json.decode(value, type=dict[str, str])
                continue
            entry = msgspec.json.decode(value, type=_HeaderEntry)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise checkpoint_error(path, f"describes {key!r} wrongly ({error})", hint, key=key) from error
        if entry.dtype not in DTYPES:
            raise checkpoint_error(
                path,
                f"holds {key!r} in the unknown number format {entry.dtype!r}",
                f"Known formats: {', '.join(DTYPES)}.",
                key=key,
            )
        entries[key] = TensorEntry(DTYPES[entry.dtype], tuple(entry.shape), *entry.data_offsets)
    if not entries:
        raise checkpoint_error(path, "holds no tensors", hint)
    return entries, metadata


def _check_layout(path: Path, entries: Mapping[str, TensorEntry], data_bytes: int) -> None:
    """Tensors must follow each other without hole or overlap and fill the file exactly."""
    position = 0
    for key, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        expected = math.prod(entry.shape) * entry.dtype.itemsize
        if entry.stop - entry.start != expected:
            raise checkpoint_error(
                path,
                f"gives {key!r} {entry.stop - entry.start:,} bytes, its shape {list(entry.shape)} needs {expected:,}",
                "The file is damaged; download or copy it again.",
                key=key,
            )
        if entry.start != position:
            kind = "overlaps the tensor before it" if entry.start < position else "leaves a hole before it"
            raise checkpoint_error(path, f"{key!r} {kind}", "The file is damaged or hostile; do not use it.", key=key)
        position = entry.stop
        if position > data_bytes:
            raise checkpoint_error(
                path,
                f"ends before the end of {key!r} ({data_bytes:,} bytes of weights, {position:,} declared)",
                "The file is truncated; download or copy it again.",
                key=key,
            )
    if position != data_bytes:
        raise checkpoint_error(
            path,
            f"holds {data_bytes - position:,} bytes that its header does not describe",
            "The file is damaged or hostile; do not use it.",
        )
