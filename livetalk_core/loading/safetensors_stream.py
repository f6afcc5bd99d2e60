"""The only reader of weight files: verified headers, then one tensor after the other to its device."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .model_files import checkpoint_error
from .safetensors_header import TensorEntry, WeightFile, read_header

_SAMPLES = 16
_SAMPLE_BYTES = 4096
_SCALE_SUFFIX = ".scale_weight"
_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class WeightSet:
    """The tensors of one module, spread over one or more verified files.

    Attributes:
        files: The files, in reading order.
        source: Folder or file they were found at, for messages.
    """

    files: tuple[WeightFile, ...]
    source: Path
    _owner: Mapping[str, WeightFile] = field(repr=False)

    @classmethod
    def open(cls, paths: Sequence[Path], source: Path | None = None) -> WeightSet:
        """Verify the headers of all files; a tensor must not be in two of them.

        Raises:
            CheckpointError: any damaged file, a tensor found twice, or 8-bit floats whose scales are of no known kind.
        """
        owner: dict[str, WeightFile] = {}
        files = tuple(read_header(path) for path in paths)
        for file in files:
            for key in file.entries:
                if key in owner:
                    raise checkpoint_error(
                        file.path,
                        f"holds {key!r}, which {owner[key].path.name} holds too",
                        "Remove the file that does not belong to this model.",
                        key=key,
                    )
                owner[key] = file
        found = cls(files, source or paths[0], owner)
        found._require_known_scales()
        return found

    def __contains__(self, key: object) -> bool:
        return key in self._owner

    def __iter__(self) -> Iterator[str]:
        """Names of all tensors."""
        return iter(self._owner)

    def entry(self, key: str) -> TensorEntry:
        """Format and shape of one tensor."""
        return self._owner[key].entries[key]

    def path_of(self, key: str) -> Path:
        """The file that holds a tensor."""
        return self._owner[key].path

    def is_scale(self, key: str) -> bool:
        """Whether `key` only describes how another tensor was quantised to 8 bit."""
        if key == "scaled_fp8":
            return True
        stem, _, leaf = key.rpartition(".")
        if leaf not in ("scale_weight", "scale_input"):
            return False
        weight = f"{stem}.weight"
        return weight in self and self.entry(weight).dtype in _FP8

    def _require_known_scales(self) -> None:
        for key in filter(self._scales_a_weight, self):
            shape, weight = self.entry(key).shape, self.entry(f"{key.removesuffix(_SCALE_SUFFIX)}.weight").shape
            per_row = (*weight[:1], *(1,) * (len(weight) - 1))
            if math.prod(shape) != 1 and shape not in (weight[:1], per_row):
                raise checkpoint_error(
                    self.path_of(key),
                    f"has scales {key!r} of shape {list(shape)} for a weight of shape {list(weight)}",
                    "One scale, or one per row, can be used; choose a file without block-wise scales.",
                    key=key,
                )

    def _scales_a_weight(self, key: str) -> bool:
        return key.endswith(_SCALE_SUFFIX) and self.is_scale(key)

    def stream(self, keys: Iterable[str], device: torch.device) -> Iterator[tuple[str, torch.Tensor]]:
        """Read tensors file by file in file order; at most one file is mapped at a time, and one more for its scale.

        The tensors may share the mapped file's memory: copy what outlives the iteration. Weights stored as
        8-bit floats with a scale (`<layer>.scale_weight`) come back as float32, scale applied.

        Raises:
            CheckpointError: the file changed or became unreadable meanwhile.
        """
        wanted = set(keys)
        for file in self.files:
            names = sorted(wanted & file.entries.keys(), key=lambda name: file.entries[name].start)
            if not names:
                continue
            try:
                with safe_open(str(file.path), framework="pt", device=str(device)) as handle:
                    for name in names:
                        yield name, self._read(handle, file, name)
            except (SafetensorError, OSError) as error:
                raise checkpoint_error(file.path, f"cannot be read ({error})", "Copy the file again.") from error

    def _read(self, handle: Any, file: WeightFile, name: str) -> torch.Tensor:
        tensor: torch.Tensor = handle.get_tensor(name)
        scale_name = name.removesuffix(".weight") + _SCALE_SUFFIX
        if tensor.dtype not in _FP8 or scale_name not in self:
            return tensor
        scale: torch.Tensor
        if scale_name in file.entries:
            scale = handle.get_tensor(scale_name).float()
        else:  # the border between two shards may lie between them
            with safe_open(str(self.path_of(scale_name)), framework="pt", device=str(tensor.device)) as other:
                scale = other.get_tensor(scale_name).float().clone()
        return tensor.float() * scale.reshape(-1, *(1,) * (tensor.ndim - 1) if scale.numel() > 1 else ())

    def fingerprint(self) -> str:
        """sha256 over headers, sizes and a sample of the weights: cheap for tens of gigabytes."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.size} {file.digest} ".encode())
            step = max(1, (file.size - _SAMPLE_BYTES) // _SAMPLES)
            with open(file.path, "rb") as stream:
                for index in range(_SAMPLES + 1):
                    stream.seek(index * step)
                    digest.update(stream.read(_SAMPLE_BYTES))
        return digest.hexdigest()
