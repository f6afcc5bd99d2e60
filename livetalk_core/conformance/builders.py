"""Modules of the dimensions that meta.json names, with published-key weights loaded through the adapters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from diffusers import AutoencoderKLWan
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from ..errors import CheckpointError
from ..models.published import IMAGE_ENCODER, TEXT_ENCODER
from ..models.state_dict_adapter import Component, published_adapter
from ..models.transformer import LiveTalkTransformer3DModel
from ..models.vae import WanVideoVAE
from .vectors import Vectors


def transformer(vectors: Vectors, windows: Tensor) -> LiveTalkTransformer3DModel:
    """The transformer; what the published class fixes is read off the weights and the feature windows."""
    weights = vectors.tensors("dit_weights")
    known = inspect.signature(LiveTalkTransformer3DModel.__init__).parameters
    settings = {key: value for key, value in vectors.config("dit").items() if key in known}
    sizes = {
        "audio_layers": windows.shape[-2],
        "audio_channels": windows.shape[-1],
        "clip_dim": weights["img_emb.proj.0.weight"].shape[0],
    }
    model = LiveTalkTransformer3DModel(**{**sizes, **settings})
    filled: LiveTalkTransformer3DModel = _filled(model, weights, "transformer")
    return filled


def vae(vectors: Vectors) -> WanVideoVAE:
    """The VAE in the form the engine runs it in."""
    config = vectors.config("vae")
    temporal = config["temporal_downsample"]
    library = AutoencoderKLWan(
        base_dim=config["dim"],
        z_dim=config["z_dim"],
        dim_mult=config["dim_mult"],
        num_res_blocks=config["num_res_blocks"],
        temperal_downsample=temporal,
        scale_factor_temporal=2 ** sum(temporal),
        scale_factor_spatial=2 ** (len(config["dim_mult"]) - 1),
    )
    return WanVideoVAE(_adapted(library, vectors, "vae_weights", "vae")).eval()


def audio_encoder(vectors: Vectors) -> Wav2Vec2Model:
    """The audio encoder; its settings are the library's own."""
    known = set(Wav2Vec2Config().to_dict())
    settings = {key: value for key, value in vectors.config("wav2vec").items() if key in known}
    return _adapted(Wav2Vec2Model(Wav2Vec2Config(**settings)), vectors, "audio_weights", "audio_encoder")


def image_encoder(vectors: Vectors) -> CLIPVisionModel:
    """The image encoder."""
    config = vectors.config("clip_vit")
    sizes = {
        "image_size": config["image_size"],
        "patch_size": config["patch_size"],
        "hidden_size": config["dim"],
        "intermediate_size": int(config["dim"] * config["mlp_ratio"]),
        "num_hidden_layers": config["num_layers"],
        "num_attention_heads": config["num_heads"],
    }
    model = CLIPVisionModel(CLIPVisionConfig(**{**IMAGE_ENCODER, **sizes}))
    return _adapted(model, vectors, "clip_weights", "image_encoder")


def text_encoder(vectors: Vectors) -> UMT5EncoderModel:
    """The text encoder."""
    config = vectors.config("t5")
    sizes = {
        "vocab_size": config["vocab"],
        "d_model": config["dim"],
        "d_kv": config["dim_attn"] // config["num_heads"],
        "d_ff": config["dim_ffn"],
        "num_layers": config["num_layers"],
        "num_heads": config["num_heads"],
        "relative_attention_num_buckets": config["num_buckets"],
        "relative_attention_max_distance": config["max_distance"],
    }
    model = UMT5EncoderModel(UMT5Config(**{**TEXT_ENCODER, **sizes}))
    return _adapted(model, vectors, "t5_weights", "text_encoder")


def _adapted(model: Any, vectors: Vectors, stem: str, component: Component) -> Any:
    """The model with the weights of a published file."""
    weights = vectors.tensors(stem)
    adapter = published_adapter(component, weights.keys())
    return _filled(model, adapter.to_library(weights), component, adapter.optional)


def _filled(model: Any, weights: Mapping[str, Tensor], component: str, optional: frozenset[str] = frozenset()) -> Any:
    """The model with exactly these weights, ready to compare."""
    try:
        result = nn.Module.load_state_dict(model, dict(weights), strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"The {component} weights do not have the sizes that meta.json says: {error}",
            "Correct meta.json or the weight file.",
        ) from error
    missing = sorted(set(result.missing_keys) - optional)
    unknown = sorted(result.unexpected_keys)
    if missing or unknown:
        raise CheckpointError(
            f"The {component} weights lack {missing[:3]} and have unknown {unknown[:3]}.",
            "Correct meta.json or the weight file.",
        )
    return model.eval().requires_grad_(False)
