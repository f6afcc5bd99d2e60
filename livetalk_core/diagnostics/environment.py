"""The facts of this machine and its libraries that decide speed and results."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from .. import __version__
from ..daemon.processes import usable_cores

LIBRARIES = (
    "torch", "diffusers", "transformers", "safetensors", "numpy", "scipy", "av", "pillow", "pyloudnorm", "msgspec",
    "typer", "rich", "matplotlib",
)  # fmt: skip


def library_version(name: str) -> str | None:
    """Version of an installed distribution, None if it is absent."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor as it names itself."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def load_average() -> float | None:
    """Processes that wanted a core in the last minute, on average; None where the system does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def graphics_cards() -> list[dict[str, Any]]:
    """Name, memory in bytes and compute capability of each CUDA device."""
    import torch

    if not torch.cuda.is_available():
        return []
    properties = (torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count()))
    return [
        {"name": card.name, "memory_bytes": card.total_memory, "capability": f"{card.major}.{card.minor}"}
        for card in properties
    ]


def fingerprint() -> dict[str, Any]:
    """Machine, libraries and settings of this process as JSON types."""
    import torch

    from ..loading.hardware import cpu_has_bf16

    return {
        "livetalk": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "cpu_bf16": cpu_has_bf16(),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": load_average(),
        "torch_threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": graphics_cards(),
        "libraries": {name: library_version(name) for name in LIBRARIES},
        "executable_bits": 64 if sys.maxsize > 2**32 else 32,
    }
