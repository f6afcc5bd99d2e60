"""A small transformer, inputs for it, and what the plain form makes of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformer_reference import velocity

from livetalk_core.models.transformer import LiveTalkTransformer3DModel

CONFIG: dict[str, Any] = {
    "text_len": 6, "dim": 48, "ffn_dim": 80, "freq_dim": 24, "text_dim": 20, "num_heads": 4, "num_layers": 2,
    "intermediate_dim": 16, "output_dim": 24, "context_tokens": 3, "audio_layers": 2, "audio_channels": 10,
    "clip_dim": 14,
}  # fmt: skip
T, H, W = 3, 4, 6


def make_model(seed: int = 0, **changes: Any) -> LiveTalkTransformer3DModel:
    """A small model without any zero or one among its weights."""
    model = LiveTalkTransformer3DModel(**(CONFIG | changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            p.copy_(base + 0.1 * torch.randn(p.shape, generator=generator))
    return model


def make_inputs(batch: int = 1, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(batch, 16, T, H, W, generator=g),
        "y": torch.randn(batch, 20, T, H, W, generator=g),
        "timestep": torch.rand(batch, generator=g) * 1000,
        "context": torch.randn(batch, 4, 20, generator=g),
        "clip": torch.randn(batch, 5, 14, generator=g),
        "windows": torch.randn(batch, 1 + 4 * (T - 1), 5, 2, 10, generator=g),
    }


def run(model: LiveTalkTransformer3DModel, x: dict[str, Tensor]) -> Tensor:
    stream, audio = model.encode_stream(x["context"], x["clip"]), model.encode_audio(x["windows"])
    return model(x["latents"], x["y"], x["timestep"], stream, audio)


def expected(model: LiveTalkTransformer3DModel, x: dict[str, Tensor]) -> Tensor:
    samples = []
    for i in range(x["latents"].shape[0]):
        one = {k: v[i] for k, v in x.items()}
        samples.append(
            velocity(model.state_dict(), 4, 6, 3, one["latents"], one["y"], float(one["timestep"]),
                     one["context"], one["clip"], one["windows"])
        )  # fmt: skip
    return torch.stack(samples)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())
