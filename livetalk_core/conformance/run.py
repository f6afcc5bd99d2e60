"""Run every check whose files a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..errors import ConfigError
from ..loading.atomic_files import replacing, unwritable
from .chunks import check_chunks
from .modules import check_audio, check_clip, check_color, check_t5, check_transformer, check_vae
from .report import CHUNK_LIMIT, FRAMES_LIMIT, MODULE_LIMIT, ConformanceReport, Limit, Row, compare, fit_shape
from .vectors import Vectors

Check = Callable[[Vectors], dict[str, Tensor]]
"""Compute what the folder's files ask for: tensor name -> result."""


@dataclass(frozen=True)
class _Component:
    """A check, the file with its inputs and results, and the weight files it needs."""

    name: str
    check: Check
    weights: tuple[str, ...]
    limit: Limit = MODULE_LIMIT

    @property
    def file(self) -> str:
        return f"{self.name}_io"


_COMPONENTS = (
    _Component("color", check_color, ()),
    _Component("audio", check_audio, ("audio_weights",)),
    _Component("t5", check_t5, ("t5_weights",)),
    _Component("clip", check_clip, ("clip_weights",)),
    _Component("vae", check_vae, ("vae_weights",)),
    _Component("dit", check_transformer, ("dit_weights",)),
    _Component("chunk", check_chunks, ("dit_weights", "vae_weights"), CHUNK_LIMIT),
)


@torch.no_grad()
def run(directory: str | Path, dump: str | Path | None = None) -> ConformanceReport:
    """Compare this engine with recorded results.

    Args:
        directory: Folder of vectors: meta.json, `<component>_weights` and `<component>_io` files.
        dump: Folder to which every computed `mid.*` and `out.*` tensor is written, under the same file and
            tensor names.

    Raises:
        ConfigError, CheckpointError: the folder cannot be read or lacks what meta.json must say.
        OutputError: the dump cannot be written.
    """
    vectors = Vectors.open(directory)
    target = None if dump is None else _make_folder(Path(dump))
    rows: list[Row] = []
    absent: list[str] = []
    for component in _COMPONENTS:
        missing = [stem for stem in (*component.weights, component.file) if not vectors.has(stem)]
        if missing:
            absent.append(f"{component.name}: no " + ", ".join(f"{stem}.safetensors" for stem in missing))
            continue
        recorded = {k: v for k, v in vectors.tensors(component.file).items() if _is_result(k)}
        computed = _compute(component, vectors)
        computed = {k: fit_shape(v, recorded[k]) if k in recorded else v for k, v in computed.items()}
        absent.extend(f"{component.name}: {name} is not computed" for name in sorted(recorded.keys() - computed))
        names = (name for name in computed if name in recorded)
        rows.extend(_row(component, name, computed[name], recorded[name]) for name in names)
        if target is not None:
            _save(target / f"{component.file}.safetensors", computed)
    return ConformanceReport(str(directory), tuple(rows), tuple(absent))


def _compute(component: _Component, vectors: Vectors) -> dict[str, Tensor]:
    try:
        return component.check(vectors)
    except KeyError as error:
        raise ConfigError(
            f"The {component.name} vectors in {vectors.directory} have no {error}.",
            "Complete meta.json and the component's files, or remove them.",
            key=str(error),
        ) from error


def _is_result(name: str) -> bool:
    """Noise is recorded among the intermediates, but it is an input."""
    return name.startswith(("mid.", "out.")) and ".noise" not in name


def _row(component: _Component, name: str, computed: Tensor, recorded: Tensor) -> Row:
    limit = FRAMES_LIMIT if name.endswith("frames_0_255") else component.limit
    return compare(component.name, name, computed, recorded, limit)


def _make_folder(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return folder


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, temporary)
