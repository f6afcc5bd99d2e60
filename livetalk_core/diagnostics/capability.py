"""What this machine can run: the embedded model by trying it, the published one by arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from ..errors import LiveTalkError
from .environment import graphics_cards

WEIGHTS_GB = 51.3
"""bf16 weights of the published model: transformer 37.8, text encoder 11.4, the other encoders and the VAE 2.1."""

WORKING_GB = 64
"""Weights and the working memory of a 768x448 chunk on one device."""

CHUNK_TFLOP = 1885 + 97 + 9.3
"""Denoising in 4 steps, decoding and motion encoding of a 33-frame chunk at 768x448."""

CHUNK_SECONDS = 28 / 25
_UTILISATION = 0.65
_PEAK_TFLOPS = {
    "B200": 2250, "H200": 989, "H100": 989, "H800": 989, "H20": 148, "A100": 312, "A800": 312, "L40S": 362,
    "L40": 181, "5090": 210, "4090": 165, "3090": 71, "A6000": 155,
}  # fmt: skip
"""Dense bf16 peak by a part of the card's name, longer names before the ones they contain."""


@dataclass(frozen=True)
class Capability:
    """Whether a model runs here, and how fast."""

    model: str
    place: str
    runs: bool
    real_time: bool
    text: str


def capabilities(timing: bool) -> tuple[list[Capability], LiveTalkError | None]:
    """Rows for the embedded and the published model, and what is wrong with the embedded one if it fails."""
    rows: list[Capability] = []
    problem = None
    if timing:
        try:
            rows.append(_try_embedded())
        except LiveTalkError as error:
            problem = error
            rows.append(Capability("embedded", "-", False, False, error.message))
    rows.extend(_published())
    return rows, problem


def _try_embedded() -> Capability:
    from .bench import BenchRequest, run_bench

    result = run_bench(BenchRequest(chunks=2, warmup=1))
    factor = result.real_time_factor
    text = f"measured real-time factor {factor:.2f} at {result.width}x{result.height}, {result.dtype}"
    return Capability("embedded", result.device, True, factor < 1, text)


def _published() -> Iterator[Capability]:
    cards = graphics_cards()
    for index, card in enumerate(cards):
        memory = card["memory_bytes"] / 1e9
        fits = memory >= WORKING_GB
        text = f"needs about {WORKING_GB} GB in bf16, the card has {memory:.0f} GB"
        seconds = chunk_seconds(card["name"])
        if fits and seconds is not None:
            text += f"; about {seconds:.1f} s per chunk of {CHUNK_SECONDS:.2f} s at {_UTILISATION:.0%} utilisation"
        quick = fits and seconds is not None and seconds < CHUNK_SECONDS
        yield Capability("14B", f"cuda:{index}", fits, quick, text)
    if not cards:
        memory = psutil.virtual_memory().total / 1e9
        fits = memory >= WORKING_GB
        text = f"needs about {WORKING_GB} GB of memory in bf16, this machine has {memory:.0f} GB"
        if fits:
            text += "; a chunk of one second takes many minutes without a GPU"
        yield Capability("14B", "cpu", fits, False, text)


def chunk_seconds(card: str) -> float | None:
    """Estimated seconds per chunk of the published model at 768x448 on a card of that name; None if unknown."""
    names = sorted(_PEAK_TFLOPS, key=len, reverse=True)
    peak = next((_PEAK_TFLOPS[name] for name in names if name in card), None)
    return None if peak is None else CHUNK_TFLOP / (peak * _UTILISATION)
