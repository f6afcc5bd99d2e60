"""What a training run needs of every GPU and of the host, told before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..config import ChunkGeometry
from ..errors import DeviceError
from ..models.transformer import LiveTalkTransformer3DModel
from .recipes import Stage2Config, TrainingRecipe

_FULL, _HALF = 4, 2
_OTHERS = 2e9
"""A guess for what every rank spends whatever runs."""


@dataclass(frozen=True)
class MemoryLine:
    """One use of memory: bytes on the rank's own device, and on the host for all ranks together."""

    what: str
    device: float
    host: float = 0.0


@dataclass(frozen=True)
class MemoryPlan:
    """All uses of a run; estimates, rounded up where in doubt.

    Attributes:
        parameters: Of one network.
        world: Ranks.
        lines: Uses.
    """

    parameters: int
    world: int
    lines: tuple[MemoryLine, ...]

    @property
    def device(self) -> float:
        """Bytes per rank on its device."""
        return sum(line.device for line in self.lines)

    @property
    def host(self) -> float:
        """Bytes on the host for all ranks."""
        return sum(line.host for line in self.lines)

    def require_fits(self, device_bytes: float, name: str) -> None:
        """Refuse a run that cannot fit.

        Raises:
            DeviceError: the plan needs more than the device has.
        """
        if self.device > device_bytes:
            raise DeviceError(
                f"Every rank needs about {self.device / 1e9:.0f} GB, {name} has {device_bytes / 1e9:.0f} GB.",
                "Use more ranks, --set run.offload=true, --set run.checkpoint_activations=true, or more accumulation.",
            )


def memory_plan(
    recipe: TrainingRecipe,
    transformer: LiveTalkTransformer3DModel,
    world: int,
    size: tuple[int, int],
    geometry: ChunkGeometry | None = None,
    vae_width: int = 96,
) -> MemoryPlan:
    """The plan of a run.

    Args:
        recipe: What runs.
        transformer: Of the model's dimensions; the meta device is enough.
        world: Ranks.
        size: Width and height of the largest bucket.
        geometry: Chunks.
        vae_width: Channels of the VAE's last stage.
    """
    run, method = recipe.run, recipe.method
    count = sum(parameter.numel() for parameter in transformer.parameters())
    width = _HALF if run.precision == "bf16" else _FULL
    if isinstance(method, Stage2Config):
        averaged = {"student": bool(method.ema_decay), "fake score": False}
    else:
        averaged = {"network": bool(method.ema_decay)}
    lines = [_trained(name, count, average, world, run.offload) for name, average in averaged.items()]
    if isinstance(method, Stage2Config):
        lines.append(MemoryLine(f"teacher, frozen, {run.precision}", count * width / world))
    largest = max(_parameters(block) for block in transformer.blocks)
    lines.append(MemoryLine("weights gathered from all ranks, two blocks at a time", 2 * largest * width))
    clips = run.batch // (run.accumulate * world) or 1
    chunks = geometry or ChunkGeometry()
    lines.append(_activations(transformer.config, clips, size, chunks, run.checkpoint_activations, width))
    if isinstance(method, Stage2Config):
        lines.append(MemoryLine("VAE: decoding a chunk", _vae_bytes(clips, size, vae_width, width)))
    lines.append(MemoryLine("context, libraries, allocator", _OTHERS))
    return MemoryPlan(count, world, tuple(lines))


def published_transformer() -> LiveTalkTransformer3DModel:
    """The published dimensions without weights."""
    with torch.device("meta"):
        transformer: LiveTalkTransformer3DModel = LiveTalkTransformer3DModel()
    return transformer


def _trained(name: str, count: int, average: bool, world: int, offload: bool) -> MemoryLine:
    copies = 4 + average
    kinds = "weights, gradients, two moments" + (", average" if average else "")
    total = copies * count * _FULL
    if offload:
        return MemoryLine(f"{name}: {kinds}, fp32, in host memory", 0.0, total)
    return MemoryLine(f"{name}: {kinds}, fp32, over {world} ranks", total / world)


def _activations(
    config: Any, clips: int, size: tuple[int, int], geometry: ChunkGeometry, recompute: bool, width: int
) -> MemoryLine:
    """Block inputs of all layers, and what one block (or every block) keeps for its backward pass."""
    stride = geometry.spatial_stride * config.patch_size[1]
    tokens = clips * geometry.latent_frames * (size[0] // stride) * (size[1] // stride)
    # Attention and cross attentions keep 14 tensors of the model's width, modulation 6 in float32, the FFN 2.
    block = tokens * (config.dim * (14 * width + 6 * _FULL) + 2 * config.ffn_dim * width)
    kept = block if recompute else config.num_layers * block
    inputs = tokens * config.dim * config.num_layers * width if recompute else 0
    how = "recomputed block by block" if recompute else "kept"
    return MemoryLine(f"activations of {clips} clip(s), {tokens:,} tokens, {how}", inputs + kept)


def _vae_bytes(clips: int, size: tuple[int, int], channels: int, width: int) -> float:
    """Four copies of the widest stage of a group of 4 latents, and the chunk's video in float32 twice."""
    pixels = clips * size[0] * size[1]
    return pixels * (4.0 * 18 * channels * width + 2 * 33 * 3 * _FULL)


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
