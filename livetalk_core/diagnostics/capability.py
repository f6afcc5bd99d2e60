"""What this machine can run: the embedded model by trying it, the published one by arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..daemon.processes import usable_cores
from ..errors import ConfigError, LiveTalkError
from ..parallel.cost import UTILISATION
from ..parallel.gpus import find_gpu
from .environment import graphics_cards, load_average

WORKING_GB = 56
"""Memory of one device for the published model in bf16: weights of 51 GB (transformer 37.8, text encoder 11.4, the
other encoders and the VAE 2.1) and what a chunk at 768x448 works with."""

OFFLOADED_GB, HOST_GB = 43, 13
"""The same where its text and image encoder wait in main memory, and what they take of that."""

CHUNK_TFLOP = 4 * 468 + 97 + 9.3
"""Denoising in 4 steps, decoding and motion encoding of a 33-frame chunk at 768x448."""

CHUNK_SECONDS = 28 / 25


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
        except Exception as error:  # whatever it is: this is where people look for the reason
            problem = _explained(error)
            rows.append(Capability("embedded", "-", False, False, problem.message))
    rows.extend(_published())
    return rows, problem


def _explained(error: Exception) -> LiveTalkError:
    if isinstance(error, LiveTalkError):
        return error
    words = " ".join(str(error).split())[:300]
    hint = "Look at the torch and GPU lines above: a torch that fits the card and its driver, and free GPU memory?"
    return LiveTalkError(f"The embedded model failed ({type(error).__name__}: {words}).", hint)


def _try_embedded() -> Capability:
    from .bench import BenchRequest, run_bench

    busy = load_average()
    result = run_bench(BenchRequest(chunks=2, warmup=1))
    factor = result.real_time_factor
    text = f"measured real-time factor {factor:.2f} at {result.width}x{result.height}, {result.dtype}"
    if busy is not None and result.device == "cpu" and busy > usable_cores() / 2:
        text += f", while other programs kept the machine busy (load {busy} on {usable_cores()} cores)"
    return Capability("embedded", result.device, True, factor < 1, text)


def _published() -> Iterator[Capability]:
    import torch

    from ..loading.placement import memory_of

    cards = graphics_cards()
    known = memory_of(torch.device("cpu"))
    host = 0.0 if known is None else known[1] / 1e9
    for index, card in enumerate(cards):
        memory = card["memory_bytes"] / 1e9
        whole = memory >= WORKING_GB
        fits = whole or (memory >= OFFLOADED_GB and host >= HOST_GB)
        text = f"needs about {WORKING_GB} GB in bf16, the card has {memory:.0f} GB"
        if fits and not whole:
            text += f": text and image encoder go to {HOST_GB} GB of main memory (--offload encoders, by itself)"
        seconds = chunk_seconds(card["name"])
        if fits and seconds is not None:
            text += f"; about {seconds:.1f} s per chunk of {CHUNK_SECONDS:.2f} s at {UTILISATION:.0%} utilisation"
        quick = fits and seconds is not None and seconds < CHUNK_SECONDS
        yield Capability("14B", f"cuda:{index}", fits, quick, text)
    if not cards:
        fits = host >= WORKING_GB
        text = f"needs about {WORKING_GB} GB of memory in bf16, there are {host:.0f} GB"
        if fits:
            text += "; a chunk of one second takes many minutes without a GPU"
        yield Capability("14B", "cpu", fits, False, text)


def chunk_seconds(card: str) -> float | None:
    """Estimated seconds per chunk of the published model at 768x448 on a card of that name; None if unknown."""
    try:
        return CHUNK_TFLOP / (find_gpu(card).bf16 * UTILISATION)
    except ConfigError:
        return None
