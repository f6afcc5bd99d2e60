"""The only place that opens a pickle: a child process that turns plain tensors into safetensors.

torch's weights-only reader does the opening; `pickle` is imported for the name of the error that it raises.

Run as `python -m livetalk_core.loading.convert_worker SOURCE TARGET`. It prints one JSON line:
`{"tensors": n}` or `{"refused": "pickle" | "content" | "output", "message": "..."}`.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import OutputError
from .atomic_files import save_tensors


class ContentError(Exception):
    """The file holds something else than a flat table of tensors."""


def load_tensors(source: Path) -> dict[str, torch.Tensor]:
    """Tensors of a state dict saved by PyTorch; nothing but plain tensors is ever built from the file.

    Raises:
        pickle.UnpicklingError: the file asks for more than plain tensors.
        ContentError: not a flat table of dense tensors.
    """
    value = _load(source)
    if not isinstance(value, Mapping) or not value:
        raise ContentError(f"it holds a {type(value).__name__}, not a table of tensors")
    tensors: dict[str, torch.Tensor] = {}
    for key, item in value.items():
        if not isinstance(key, str) or not isinstance(item, torch.Tensor) or item.layout is not torch.strided:
            raise ContentError(f"its entry {key!r} is a {type(item).__name__}, not a plain tensor")
        tensors[key] = item.detach()
    return tensors


def _load(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        # Files of torch < 1.6 are not archives and cannot be mapped; they are read whole, as strictly.
        if "mmap" not in str(error):
            raise
        return torch.load(source, map_location="cpu", weights_only=True)


_READ_ERRORS = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, OSError, MemoryError)


def run(source: Path, target: Path) -> dict[str, Any]:
    """Convert and say in plain words what came of it."""
    try:
        tensors = load_tensors(source)
        save_tensors(target, tensors, {"format": "pt"})
    except pickle.UnpicklingError as error:
        return {"refused": "pickle", "message": _what_was_asked_for(str(error))}
    except ContentError as error:
        return {"refused": "content", "message": str(error)}
    except OutputError as error:
        return {"refused": "output", "message": error.message, "hint": error.hint}
    except _READ_ERRORS as error:
        return {"refused": "content", "message": f"it cannot be read ({str(error)[:300] or type(error).__name__})"}
    return {"tensors": len(tensors)}


def _what_was_asked_for(message: str) -> str:
    """What a refused pickle wanted to call; the rest of torch's message advises to load it without care."""
    name = re.search(r"GLOBAL ([\w.]+)", message)
    return f"It asks for {name[1]}." if name else "Its instructions are none that weights need."


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]))) + "\n")
