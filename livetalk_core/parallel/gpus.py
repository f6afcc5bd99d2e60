"""Peak rates of graphics cards, for predictions."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """Vendor numbers, dense.

    Attributes:
        name: Name of the card.
        bf16: TFLOP/s in bfloat16 with float32 accumulation.
        memory: Bytes.
        bandwidth: Bytes per second from its memory.
        link: Bytes per second to its peers, in one direction.
    """

    name: str
    bf16: float
    memory: float
    bandwidth: float
    link: float


GPUS: tuple[Gpu, ...] = (
    Gpu("H20", 148, 96e9, 4.0e12, 450e9),
    Gpu("H800", 989, 80e9, 3.35e12, 200e9),
    Gpu("H100", 989, 80e9, 3.35e12, 450e9),
    Gpu("H200", 989, 141e9, 4.8e12, 450e9),
    Gpu("B200", 2250, 180e9, 8.0e12, 900e9),
    Gpu("A100", 312, 80e9, 2.04e12, 300e9),
    Gpu("A800", 312, 80e9, 2.04e12, 200e9),
    Gpu("RTX5090", 209.5, 32e9, 1.79e12, 50e9),
    Gpu("RTX4090", 165, 24e9, 1.01e12, 25e9),
)


def find_gpu(name: str) -> Gpu:
    """The card of that name, in any spelling of case, spaces and dashes.

    Raises:
        ConfigError: unknown card.
    """
    wanted = _plain(name)
    for gpu in sorted(GPUS, key=lambda card: -len(card.name)):
        if wanted and (_plain(gpu.name) in wanted or wanted == _plain(gpu.name).removeprefix("RTX")):
            return gpu
    known = ", ".join(gpu.name for gpu in GPUS)
    raise ConfigError(f"No rates are known for the GPU {name!r}.", f"Known: {known}.", setting="gpu")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.upper() if letter.isalnum())
