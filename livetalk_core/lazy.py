"""Names of a package that import their module when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A `__getattr__` for a package, so that importing it does not import torch, PyAV and the like.

    Args:
        package: The package's `__name__`.
        modules: Module below the package -> the names it gives to the package.

    Returns:
        The function; it raises AttributeError for any other name, as Python expects.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f".{homes[name]}", package), name)

    return attribute
