"""Peak rates of graphics cards, for predictions."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import ConfigError


@dataclass(frozen=True)
class Gpu:
    """Vendor numbers, dense.

    Attributes:
        name: Name of the card.
        bf16: TFLOP/s in bfloat16 with float32 accumulation.
        fp32: TFLOP/s in float32 without tensor cores, which this package leaves off: TF32 is not float32.
        memory: Bytes.
        bandwidth: Bytes per second from its memory.
        link: Bytes per second to its peers, in one direction.
    """

    name: str
    bf16: float
    fp32: float
    memory: float
    bandwidth: float
    link: float


GPUS: tuple[Gpu, ...] = (
    Gpu("H20", 148, 44, 96e9, 4.0e12, 450e9),
    Gpu("H800", 989, 67, 80e9, 3.35e12, 200e9),
    Gpu("H100", 989, 67, 80e9, 3.35e12, 450e9),
    Gpu("H200", 989, 67, 141e9, 4.8e12, 450e9),
    Gpu("B200", 2250, 80, 180e9, 8.0e12, 900e9),
    Gpu("A100", 312, 19.5, 80e9, 2.04e12, 300e9),
    Gpu("A800", 312, 19.5, 80e9, 2.04e12, 200e9),
    Gpu("RTX5090", 209.5, 104.8, 32e9, 1.79e12, 50e9),
    Gpu("RTX4090", 165, 82.6, 24e9, 1.01e12, 25e9),
)


def find_gpu(name: str) -> Gpu:
    """The card of that name, as people write it ("rtx-4090", "H100") or as it names itself ("NVIDIA A100-SXM4-40GB").

    A memory size in the name counts, because some cards come with several.

    Raises:
        ConfigError: unknown card.
    """
    words = re.findall(r"[A-Z0-9]+", name.upper())
    # "RTX 4090" and "RTX4090" are one name; a bare number means the same card.
    spelled = {*words, *(first + second for first, second in pairwise(words))}
    if len(words) == 1 and words[0].isdigit():
        spelled.add(f"RTX{words[0]}")
    # A laptop's card of the same name is a smaller one, a slice of a card a part of it.
    for gpu in () if spelled & {"LAPTOP", "MIG"} else GPUS:
        if gpu.name in spelled:
            sizes = [int(word.removesuffix("GB")) for word in words if re.fullmatch(r"\d+GB", word)]
            return replace(gpu, memory=sizes[0] * 1e9) if sizes else gpu
    known = ", ".join(gpu.name for gpu in GPUS)
    raise ConfigError(f"No rates are known for the GPU {name!r}.", f"Known: {known}.", setting="gpu")
