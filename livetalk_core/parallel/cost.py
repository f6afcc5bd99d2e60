"""What a plan costs: FLOPs, bytes over the links, memory and the time a roofline allows."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import DeviceError
from .gpus import Gpu
from .model_shape import ModelShape, TransformerShape
from .plan import ParallelPlan
from .vae_cost import VAECost, decode_cost, encode_cost

UTILISATION = 0.65
"""Share of the dense peak that the published transformer reaches on H20 cards; predictions name it."""


@dataclass(frozen=True)
class ChunkCost:
    """One chunk under a plan; per rank means the rank with most work.

    Attributes:
        step_flops: One transformer step, all ranks together.
        attention_flops: Self attention's part of it.
        steps: Transformer steps.
        decode, encode: The VAE's passes over the chunk and over the motion frames.
        ulysses_bytes, ring_bytes, gather_bytes: Sent per rank and step.
        number_bytes: Per number.
        step_bytes: Weights that every step reads: the transformer's.
        weight_bytes: Held by every rank.
        memory_bytes: Weights and working memory of a rank, estimated.
    """

    step_flops: float
    attention_flops: float
    steps: int
    decode: VAECost
    encode: VAECost
    ulysses_bytes: float
    ring_bytes: float
    gather_bytes: float
    number_bytes: int
    step_bytes: float
    weight_bytes: float
    memory_bytes: float


@dataclass(frozen=True)
class Prediction:
    """Seconds of one chunk at the peak of a card; `expected` is with computing at `UTILISATION`."""

    transformer: float
    vae: float
    links: float
    expected: float

    @property
    def roofline(self) -> float:
        """Seconds if nothing overlaps and everything runs at its peak."""
        return self.transformer + self.vae + self.links


def transformer_flops(shape: TransformerShape, tokens: int, frames: int) -> tuple[float, float]:
    """FLOPs of one step, and self attention's part of them, with text and image keys computed once per stream."""
    dim, audio = shape.dim, frames * shape.audio_tokens
    attention = 4.0 * tokens * tokens * dim
    linear = (4 + 2 + 2) * 2.0 * tokens * dim * dim + 4.0 * tokens * dim * shape.ffn_dim
    conditions = 4.0 * tokens * (shape.text_tokens + shape.image_tokens + shape.audio_tokens) * dim
    keys = 4.0 * audio * shape.audio_dim * dim
    patch = shape.patch[0] * shape.patch[1] * shape.patch[2]
    ends = 2.0 * tokens * dim * patch * (shape.in_channels + shape.out_channels)
    return shape.layers * (attention + linear + conditions + keys) + ends, shape.layers * attention


def chunk_cost(
    plan: ParallelPlan, shape: ModelShape, frames: int, motion: int, steps: int, width: int = 2
) -> ChunkCost:
    """The cost of a chunk.

    Args:
        plan: Who computes what.
        shape: The model.
        frames: Latent frames of a chunk.
        motion: Latent frames that are encoded again.
        steps: Transformer steps.
        width: Bytes per number: 2 for bf16, 4 for fp32.
    """
    model, vae = shape.transformer, shape.vae
    step, attention = transformer_flops(model, plan.tokens, frames)
    local = plan.tokens_per_rank * model.dim * width * model.layers
    patch = model.patch[0] * model.patch[1] * model.patch[2]
    of_steps = float(model.parameters * width)
    weights = of_steps + shape.weights_elsewhere + shape.text_weights * (width / 2 - 1)
    return ChunkCost(
        step_flops=step,
        attention_flops=attention,
        steps=steps,
        decode=decode_cost(vae, frames, plan.grid, width),
        encode=encode_cost(vae, motion, plan.grid, width),
        ulysses_bytes=4 * local * (plan.ulysses - 1) / plan.ulysses,
        ring_bytes=2 * local * (plan.ring - 1),
        gather_bytes=plan.tokens_per_rank * model.out_channels * patch * 4.0 * (plan.world - 1),
        number_bytes=width,
        step_bytes=of_steps,
        weight_bytes=weights,
        memory_bytes=weights + max(_transformer_memory(plan, model, width), _vae_memory(plan, shape, frames, width)),
    )


def predict(plan: ParallelPlan, cost: ChunkCost, gpu: Gpu) -> Prediction:
    """Seconds of one chunk on `plan.world` cards; communication is not overlapped.

    The busiest rank decides: padded places are computed, and the VAE waits for the largest tile.
    """
    peak = (gpu.bf16 if cost.number_bytes == 2 else gpu.fp32) * 1e12
    share = plan.tokens_per_rank / plan.tokens
    weights = cost.step_bytes / gpu.bandwidth
    transformer = cost.steps * max(cost.step_flops * share / peak, weights)
    cells = plan.latent_hw[0] * plan.latent_hw[1]
    vae = (cost.decode.flops + cost.encode.flops) * plan.grid.largest_tile() / cells / peak
    sent = cost.steps * (cost.ulysses_bytes + cost.ring_bytes + cost.gather_bytes)
    links = (sent + cost.decode.sent + cost.encode.sent) / gpu.link
    return Prediction(transformer, vae, links, (transformer + vae) / UTILISATION + links)


def require_fits(cost: ChunkCost, gpu: Gpu) -> None:
    """Refuse a plan whose ranks need more memory than the card has.

    Raises:
        DeviceError: with the sum that does not fit.
    """
    if cost.memory_bytes > gpu.memory:
        working = cost.memory_bytes - cost.weight_bytes
        raise DeviceError(
            f"Every rank needs weights {cost.weight_bytes / 1e9:.1f} GB + working memory {working / 1e9:.1f} GB = "
            f"{cost.memory_bytes / 1e9:.1f} GB; the {gpu.name} has {gpu.memory / 1e9:.0f} GB.",
            "More ranks do not shrink the weights: use a larger card, fewer bytes per weight, or offload 'encoders' "
            "(13 GB less).",
            gpu=gpu.name,
        )


def _transformer_memory(plan: ParallelPlan, model: TransformerShape, width: int) -> float:
    """Residual stream, modulated copy and float32 temporaries, q, k, v twice (before and after the exchange), FFN."""
    places = plan.tokens_per_rank
    activations = places * (model.dim * (8 * width + 2 * 4) + 2 * model.ffn_dim * width)
    conditions = 2.0 * model.layers * (model.text_tokens + model.image_tokens) * model.dim * width
    return activations + conditions


def _vae_memory(plan: ParallelPlan, shape: ModelShape, frames: int, width: int) -> float:
    """Four latents' worth of the last stage, padded copy and output included, and the whole video in float32."""
    vae = shape.vae
    pixels = plan.grid.largest_tile() * vae.spatial_stride**2 / vae.patch**2
    group = min(frames, 4) * 4 + 2
    video = 3.0 * (1 + 4 * (frames - 1)) * plan.latent_hw[0] * plan.latent_hw[1] * vae.spatial_stride**2
    return 4.0 * pixels * group * vae.base_dim * width + 2 * 4 * video
