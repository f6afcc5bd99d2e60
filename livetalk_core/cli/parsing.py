"""Values of options that need more than their type."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import decode_config
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..daemon.hosts import Hosts


def parse_size(text: str | None) -> tuple[int, int] | None:
    """"448x768" -> (448, 768).

    Raises:
        ConfigError: not of this form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*", text)
    if match is None:
        raise ConfigError(f"--size is {text!r}.", "Write width x height in pixels, such as --size 448x768.")
    return int(match[1]), int(match[2])


def parse_devices(text: str | None, world_size: int | None) -> tuple[int, ...] | None:
    """"0,2" -> (0, 2).

    Raises:
        ConfigError: not of this form, a GPU named twice, or not one for each rank.
    """
    if text is None:
        return None
    if not re.fullmatch(r"\s*\d{1,4}\s*(,\s*\d{1,4}\s*)*", text):
        raise ConfigError(f"--devices is {text!r}.", "Write the numbers of GPUs, such as --devices 0,1.")
    devices = tuple(int(part) for part in text.split(","))
    if len(set(devices)) < len(devices) or len(devices) != world_size:
        ranks = "no --world-size" if world_size is None else f"--world-size {world_size}"
        raise ConfigError(f"--devices is {text!r} with {ranks}.", "Name one GPU for each rank, each once.")
    return devices


def read_hosts(path: Path | None, world_size: int | None) -> Hosts | None:
    """The hosts that a file describes.

    Raises:
        ConfigError: no such file, not of this form, or another number of ranks than asked for.
    """
    if path is None:
        return None
    from ..daemon.hosts import Hosts

    try:
        hosts = decode_config(Hosts, path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(f"--hosts {path} cannot be read ({error.strerror}).", "Check the path.") from error
    if world_size not in (None, hosts.world):
        raise ConfigError(
            f"--world-size is {world_size}, {path} has {hosts.nodes} hosts x {hosts.ranks_per_node} ranks.",
            f"Leave --world-size out, or say {hosts.world}.",
        )
    return hosts


def model_name(text: str) -> str | None:
    """None for the embedded model."""
    return None if text == "embedded" else text
