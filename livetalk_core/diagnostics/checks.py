"""What `livetalk doctor` looks at; every check yields findings and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from ..daemon.processes import usable_cores
from ..errors import LiveTalkError
from .environment import cpu_name, graphics_cards, library_version

Status = Literal["ok", "note", "problem"]
_GIB = 2**30
_FREE_DISK = 2 * _GIB
REQUIRED = {
    "diffusers": ">=0.35", "transformers": ">=4.50,<6", "safetensors": ">=0.4.4", "numpy": ">=1.26", "scipy": ">=1.11",
    "av": ">=14.2", "pillow": ">=10", "pyloudnorm": ">=0.1.1", "msgspec": ">=0.18", "typer": ">=0.26", "rich": ">=13",
    "accelerate": ">=0.30", "ftfy": ">=6", "sentencepiece": ">=0.2", "psutil": ">=6", "matplotlib": ">=3.8",
}  # fmt: skip
"""What pyproject.toml asks for besides torch and xfuser; inside ComfyUI there is no installed package to ask."""


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    subject: str
    status: Status
    text: str
    fix: str = ""


def _python() -> Iterator[Finding]:
    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _torch() -> Iterator[Finding]:
    import torch

    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    threads = torch.get_num_threads()
    text = f"{torch.__version__} ({built}), {threads} thread{'s' if threads > 1 else ''}"
    numbers = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if numbers < (2, 6):
        yield Finding("torch", "problem", text, "pip install --upgrade 'torch>=2.6'")
    elif threads < usable_cores() // 2:
        yield Finding("torch", "note", text, f"Unset OMP_NUM_THREADS to use all {usable_cores()} cores.")
    else:
        yield Finding("torch", "ok", text)


def _processor() -> Iterator[Finding]:
    from ..loading.hardware import cpu_has_bf16

    native = cpu_has_bf16()
    text = f"{cpu_name()}, {usable_cores()} cores, bfloat16 {'native' if native else 'not native: fp32 is used'}"
    yield Finding("processor", "ok", text)


def _graphics() -> Iterator[Finding]:
    import torch

    cards = graphics_cards()
    for index, card in enumerate(cards):
        text = f"{card['name']}, {card['memory_bytes'] / _GIB:.0f} GiB, compute capability {card['capability']}"
        yield Finding(f"GPU cuda:{index}", "ok", text)
    driver = shutil.which("nvidia-smi") is not None
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not cards and driver and torch.version.cuda is None:
        yield Finding(
            "GPU", "problem", "an NVIDIA driver is here, but this torch was built without CUDA",
            "Install the CUDA build: see https://pytorch.org/get-started/locally",
        )  # fmt: skip
    elif not cards and driver and hidden is not None:
        text = f"torch sees none; CUDA_VISIBLE_DEVICES is {hidden!r}"
        yield Finding("GPU", "note", text, "Unset it to use all GPUs.")
    elif not cards and driver:
        yield Finding(
            "GPU", "problem", f"an NVIDIA driver is here, but torch {torch.__version__} sees no GPU",
            "Look at nvidia-smi: a newer driver, or a torch for an older CUDA, is needed.",
        )  # fmt: skip
    elif not cards:
        yield Finding("GPU", "note", "none", "The embedded model does not need one; the 14B model does.")


def _libraries() -> Iterator[Finding]:
    for name, wanted in REQUIRED.items():
        found = library_version(name)
        lowest, _, limit = wanted.removeprefix(">=").partition(",<")
        if found is None:
            yield Finding(name, "problem", "not installed", f"pip install '{name}{wanted}'")
        elif _numbers(found) < _numbers(lowest):
            yield Finding(name, "problem", f"{found} is too old", f"pip install --upgrade '{name}{wanted}'")
        elif limit and _numbers(found) >= _numbers(limit):
            yield Finding(name, "problem", f"{found} is not supported yet", f"pip install '{name}{wanted}'")
        else:
            yield Finding(name, "ok", found)


def _numbers(text: str) -> tuple[int, ...]:
    parts = text.split("+")[0].split(".")[:3]
    return tuple(int("".join(ch for ch in part if ch.isdigit()) or 0) for part in parts)


def _codecs() -> Iterator[Finding]:
    import av

    wanted = {"libx264": "H.264 for .mp4", "aac": "sound for .mp4", "ffv1": "lossless .mkv"}
    for name, use in wanted.items():
        if name in av.codecs_available:
            yield Finding(f"codec {name}", "ok", use)
        elif name == "libx264" and "libopenh264" in av.codecs_available:
            yield Finding(f"codec {name}", "note", "absent; libopenh264 is used", "pip install --force-reinstall av")
        else:
            yield Finding(f"codec {name}", "problem", f"absent: no {use}", "pip install --force-reinstall av")


def _programs() -> Iterator[Finding]:
    from ..engine.compilation import find_compiler

    compiler = find_compiler()
    if compiler:
        yield Finding("C++ compiler", "ok", f"{compiler} (for --compile on a CPU)")
    else:
        yield Finding("C++ compiler", "note", "none: no --compile on a CPU", "Debian, Ubuntu: apt-get install g++")


def _optional() -> Iterator[Finding]:
    found = library_version("xfuser")
    if found:
        yield Finding("xfuser", "ok", f"{found} (for ranks on GPUs, where it agrees with torch)")
    else:
        fix = "Nothing to do: ranks then share attention by torch alone."
        yield Finding("xfuser", "note", "not installed", fix)
    if find_spec("comfy") is not None:
        yield Finding("ComfyUI", "ok", "found in this environment")
    else:
        fix = "Nothing to do: the command line does not need it."
        yield Finding("ComfyUI", "note", "not in this environment", fix)


def _daemon() -> Iterator[Finding]:
    from ..daemon.registry import running_daemons
    from ..daemon.runtime_dir import base_directory

    if not sys.platform.startswith("linux"):
        fix = "Nothing to do: one process makes the same videos."
        yield Finding("daemon", "note", f"several ranks need Linux, this is {platform.system()}", fix)
        return
    try:
        daemons = running_daemons()
    except LiveTalkError as error:
        yield Finding("daemon", "problem", error.message, error.hint)
        return
    running = ", ".join(f"{each.name} ({each.config.model or 'embedded'})" for each in daemons) or "none runs"
    yield Finding("daemon", "ok", f"{running}; folder for sockets {base_directory()} is private")


def _memory_and_disk() -> Iterator[Finding]:
    import torch

    from ..loading.placement import memory_of

    available, total = memory_of(torch.device("cpu")) or (0, 0)
    text = f"{available / _GIB:.1f} of {total / _GIB:.1f} GiB free"
    if available < 2 * _GIB:
        yield Finding("memory", "problem", text, "Close other programs: the embedded model needs about 2 GiB.")
    else:
        yield Finding("memory", "ok", text)
    free = shutil.disk_usage(os.getcwd()).free
    text = f"{free / _GIB:.1f} GiB free in the current folder"
    if free < _FREE_DISK:
        yield Finding("disk", "note", text, "Free some space, or give --out a path on another disk.")
    else:
        yield Finding("disk", "ok", text)


CHECKS: Final[tuple[Callable[[], Iterator[Finding]], ...]] = (
    _python, _torch, _processor, _graphics, _libraries, _codecs, _programs, _optional, _daemon, _memory_and_disk,
)  # fmt: skip
"""Everything but models, in the order in which it is shown."""


def models_in(folder: Path, required: bool = True) -> Iterator[Finding]:
    """The model in a folder, or the models in its sub-folders.

    Args:
        folder: Where to look.
        required: Finding none is a problem.
    """
    from ..loading.layout import looks_like_model

    inside = [child for child in sorted(folder.iterdir()) if looks_like_model(child)] if folder.is_dir() else []
    if looks_like_model(folder) or (required and not inside):
        inside = [folder]
    for path in inside:
        yield model_finding(path, f"model {path}")


def model_finding(path: Path | None, subject: str) -> Finding:
    """Whether a model's files are there and describe one; the embedded model for None."""
    from ..loading.describe import describe_model

    try:
        manifest = describe_model(path)
    except LiveTalkError as error:
        return Finding(subject, "problem", error.message, error.hint)
    return Finding(subject, "ok", f"{manifest.name}, {manifest.defaults.width}x{manifest.defaults.height}")
