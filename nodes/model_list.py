"""Which models can be chosen, and where they lie; names from outside are compared, never joined to a path."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

EMBEDDED = "embedded"
_MANIFEST = "livetalk.json"
_PUBLISHED = "diffusion_pytorch_model*.safetensors"


def list_models(roots: Iterable[Path]) -> list[str]:
    """Names of all models, the embedded one first; a folder that is not complete is listed too, and says so later."""
    return [EMBEDDED, *sorted(_folders(roots), key=str.casefold)]


def find_model_folder(name: str, roots: Iterable[Path]) -> Path | None:
    """The folder of a listed model; None for the embedded one.

    Raises:
        KeyError: there is no such model.
    """
    return None if name == EMBEDDED else _folders(roots)[name]


def model_stamp(folder: Path | None) -> str:
    """Changes when a file of the model does; reads no file."""
    if folder is None:
        return EMBEDDED
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return _digest([f"{path.relative_to(folder)} {file_stamp(path)}" for path in files])


def file_stamp(path: Path) -> str:
    """Changes when a file does; does not read it."""
    status = path.stat()
    return _digest([f"{status.st_size} {status.st_mtime_ns}"])


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _folders(roots: Iterable[Path]) -> dict[str, Path]:
    """Model folders by name; of two with the same name, the one in the first root."""
    found: dict[str, Path] = {}
    for root in roots:
        for folder in root.iterdir() if root.is_dir() else ():
            if folder.is_dir() and ((folder / _MANIFEST).is_file() or any(folder.glob(_PUBLISHED))):
                found.setdefault(folder.name, folder)
    return found
