"""A folder of recorded vectors: dimensions, weights, inputs and results."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Vectors:
    """A folder of vectors; files are read when asked for."""

    directory: Path
    configs: dict[str, Any]

    @classmethod
    def open(cls, directory: str | Path) -> Vectors:
        """Read meta.json.

        Raises:
            ConfigError: no folder, no meta.json, or one that is not what it should be.
        """
        folder = Path(directory)
        path = folder / "meta.json"
        try:
            configs = json.loads(path.read_text(encoding="utf-8"))["configs"]
        except OSError as error:
            raise ConfigError(
                f"{path} cannot be read ({error.strerror}).",
                "Give a folder of conformance vectors.",
                file=str(path),
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} has no 'configs' ({error!r}).",
                "Give a folder of conformance vectors.",
                file=str(path),
            ) from error
        return cls(folder, configs)

    def has(self, stem: str) -> bool:
        """Whether the file of that name is there."""
        return self._path(stem).is_file()

    def tensors(self, stem: str) -> dict[str, Tensor]:
        """All tensors of a file; CheckpointError if it cannot be read."""
        path = self._path(stem)
        try:
            return dict(load_file(path))
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path} cannot be read ({error}).", "Copy the file again.", file=str(path)
            ) from error

    def config(self, name: str) -> dict[str, Any]:
        """Dimensions of one module; ConfigError if meta.json does not have them."""
        found = self.configs.get(name)
        if not isinstance(found, dict):
            raise ConfigError(
                f"{self.directory / 'meta.json'} has no configs.{name}.",
                "Add the module's dimensions, or remove its files.",
                key=name,
            )
        return found

    def _path(self, stem: str) -> Path:
        return self.directory / f"{stem}.safetensors"
