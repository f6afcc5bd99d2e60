"""A rank's place on its machine: its device, its share of the CPU, and what the device says when memory runs out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import DeviceError, OutOfMemoryError
from ..loading.placement import available_devices, memory_of
from .processes import usable_cores

_ASKED_FOR = (re.compile(r"[Tt]ried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)"), re.compile(r"allocate (\d+) (bytes)"))
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def rank_device(setting: str, rank: int, world: int) -> str:
    """The device of a rank.

    Args:
        setting: See `DaemonConfig`.
        rank, world: This rank, and how many there are on this machine.

    Raises:
        DeviceError: fewer devices than ranks, or devices of different kinds; on every rank alike.
    """
    names = [name.strip() for name in setting.split(",")]
    if len(names) == 1 and names[0] in ("auto", "cuda"):
        if names[0] == "auto" and not torch.cuda.is_available():
            return "cpu"
        names = [f"cuda:{number}" for number in range(world)]
    elif names == ["cpu"]:
        return "cpu"
    if len(names) != world or len(set(names)) != world:
        raise DeviceError(
            f"{world} ranks were asked for on {setting}.", "Name one device for each rank, or use auto.",
            setting="device",
        )  # fmt: skip
    here = available_devices()
    if missing := [name for name in names if name not in here]:
        raise DeviceError(
            f"The ranks need {', '.join(names)}; there is no {', '.join(missing)}.",
            f"Available: {', '.join(here)}. Start at most as many ranks as there are GPUs.", setting="device",
        )  # fmt: skip
    cards = {torch.cuda.get_device_name(name) for name in names if name.startswith("cuda")}
    if len(cards) > 1:
        raise DeviceError(
            f"The ranks would run on different cards: {', '.join(sorted(cards))}.",
            "Ranks compare their results bit for bit; name devices of one kind.", setting="device",
        )  # fmt: skip
    return names[rank]


@contextmanager
def memory_reported(device: torch.device) -> Iterator[None]:
    """Turn the library's errors about memory into ours, with what was needed and what is free.

    Raises:
        OutOfMemoryError: in place of them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in text:
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        needed, memory = _asked_for(text), memory_of(device)
        free = None if memory is None else memory[0]
        facts = [f"{_gib(value)} {what}" for value, what in ((needed, "needed"), (free, "free")) if value is not None]
        raise OutOfMemoryError(
            f"{device} ran out of memory: {', '.join(facts) or 'nothing more is known'}.",
            "Use smaller pictures, bf16, more ranks or a device with more memory, or end what else uses it.",
            needed=needed, free=free, device=str(device),
        ) from error  # fmt: skip


def set_threads(threads: int | None, world: int) -> None:
    """The number given; else ranks on one machine share its cores, and one rank alone keeps torch's own choice."""
    if threads is not None:
        torch.set_num_threads(threads)
    elif world > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // world))


def _asked_for(text: str) -> int | None:
    found = next((match for pattern in _ASKED_FOR if (match := pattern.search(text))), None)
    return None if found is None else int(float(found[1]) * _UNITS[found[2]])


def _gib(value: int) -> str:
    return f"{value / 2**30:.2f} GiB"
