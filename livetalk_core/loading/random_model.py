"""Models with random weights, made on their device without a checkpoint: for timing, never for pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, Wav2Vec2Config, Wav2Vec2Model

from ..errors import CheckpointError
from ..models.bundle import ModelBundle, ModelDefaults
from ..models.published import IMAGE_ENCODER, VAE
from ..models.transformer import LiveTalkTransformer3DModel
from ..models.vae import WanVideoVAE
from .manifest import PUBLISHED_DEFAULTS
from .meta_module import finish, parameter_dtype, place
from .placement import Placement, choose_placement, require_memory

PREFIX = "random:"


@dataclass(frozen=True)
class Dimensions:
    """Arguments of the four modules' classes; what is left out has the published value."""

    defaults: ModelDefaults
    transformer: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)
    image: Mapping[str, Any] = field(default_factory=dict)
    audio: Mapping[str, Any] = field(default_factory=dict)


SIZES: dict[str, Dimensions] = {
    "14b": Dimensions(PUBLISHED_DEFAULTS, vae=VAE, image=IMAGE_ENCODER),
    "tiny": Dimensions(
        ModelDefaults(width=128, height=128),
        transformer={
            "text_len": 8, "dim": 192, "ffn_dim": 512, "freq_dim": 64, "text_dim": 64, "num_heads": 3,
            "num_layers": 6, "intermediate_dim": 96, "output_dim": 96, "context_tokens": 8, "audio_layers": 3,
            "audio_channels": 64, "clip_dim": 64,
        },
        vae={
            "base_dim": 16, "dim_mult": [1, 2, 4], "num_res_blocks": 1, "temperal_downsample": [True, True],
            "in_channels": 12, "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 8,
        },
        image={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 224, "patch_size": 32,
        },
        audio={
            "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
            "conv_dim": [64] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
        },
    ),
}  # fmt: skip


def random_model(
    size: str, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto", seed: int = 0
) -> ModelBundle:
    """A model of full function and no meaning.

    It has no text encoder: text runs once per stream and does not count in a chunk's time.

    Args:
        size: "14b" (the published dimensions) or "tiny" (about those of the embedded model).
        device, dtype: As for `load_model`.
        seed: Decides the weights, together with the device they are drawn on.

    Raises:
        CheckpointError: unknown size.
        DeviceError: a device or format this machine does not offer, or too little memory.
    """
    if size not in SIZES:
        raise CheckpointError(
            f"There is no random model {PREFIX}{size}.", f"Known: {', '.join(PREFIX + s for s in SIZES)}."
        )
    place_on = choose_placement(device, dtype)
    dims = SIZES[size]
    with torch.device("meta"):
        modules: dict[str, tuple[nn.Module, torch.dtype]] = {
            "transformer": (LiveTalkTransformer3DModel(**dims.transformer), place_on.dtype),
            "vae": (AutoencoderKLWan(**dims.vae), place_on.dtype),
            "image": (CLIPVisionModel(CLIPVisionConfig(**dims.image)), place_on.image_dtype),
            "audio": (Wav2Vec2Model(Wav2Vec2Config(**dims.audio)), place_on.audio_dtype),
        }
    needed = sum(
        value.numel() * parameter_dtype(module, name, value.dtype, dtype).itemsize
        for module, dtype in modules.values()
        for name, value in module.state_dict(keep_vars=True).items()
    )
    require_memory(needed, place_on.device, f"{PREFIX}{size}")
    generator = torch.Generator(place_on.device).manual_seed(seed)
    for module, module_dtype in modules.values():
        randomise(module, module_dtype, place_on.device, generator)
    return _bundle(size, seed, dims.defaults, {name: module for name, (module, _) in modules.items()}, place_on)


def _bundle(
    size: str, seed: int, defaults: ModelDefaults, modules: Mapping[str, Any], place_on: Placement
) -> ModelBundle:
    return ModelBundle(
        transformer=modules["transformer"],
        vae=WanVideoVAE(modules["vae"]).to(place_on.device),
        audio_encoder=modules["audio"],
        audio_normalise=True,
        image_encoder=modules["image"],
        text_encoder=None,
        tokenizer=None,
        defaults=defaults,
        name=f"{PREFIX}{size}",
        revision=f"{PREFIX}{size}:{seed}:{place_on.device.type}",
        device=place_on.device,
        dtype=place_on.dtype,
    )


def randomise(module: nn.Module, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> None:
    """Give a meta-built module random weights: normal / sqrt(inputs) for matrices, ones for norms."""
    for name, value in list(module.state_dict(keep_vars=True).items()):
        target = parameter_dtype(module, name, value.dtype, dtype)
        place(module, name, _initial(name, value, target, device, generator), dtype, device)
    finish(module, device)


def _initial(name: str, value: Tensor, dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> Tensor:
    if sum(size > 1 for size in value.shape) < 2 or name.endswith("original0"):
        fill = 0.0 if name.endswith("bias") else 1.0
        return torch.full(value.shape, fill, dtype=dtype, device=device)
    fan_in = math.prod(value.shape[1:])
    return torch.empty(value.shape, dtype=dtype, device=device).normal_(0.0, fan_in**-0.5, generator=generator)
