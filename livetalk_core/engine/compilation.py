"""Compiling the transformer: worth it for long videos, needs a C++ compiler on a CPU."""

from __future__ import annotations

import os
import shutil

import torch

from ..errors import MissingDependencyError
from ..models.bundle import ModelBundle


def find_compiler() -> str | None:
    """Path of the C++ compiler that torch would use on a CPU."""
    return next(
        (found for name in (os.environ.get("CXX", ""), "g++", "clang++") if name and (found := shutil.which(name))),
        None,
    )


def require_compiler(device: torch.device) -> None:
    """Raise MissingDependencyError where compiling for `device` needs a program that is not installed."""
    if device.type == "cpu" and find_compiler() is None:
        raise MissingDependencyError(
            "Compiling for the CPU needs a C++ compiler, and none was found.",
            "Install one (Debian, Ubuntu: apt-get install g++), or do without compiling.",
        )


def compile_model(bundle: ModelBundle) -> None:
    """Compile the repeated blocks of the transformer in place; the work is done when they first run."""
    bundle.transformer.compile_repeated_blocks(dynamic=False)
