"""A model of full function and a few thousand random weights, for tests of what runs around it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from numpy.typing import NDArray
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModel, Wav2Vec2Config, Wav2Vec2Model

from livetalk_core.config import AudioConfig, ChunkGeometry, CorrectionConfig, SamplerConfig, StreamConfig
from livetalk_core.engine import Chunk
from livetalk_core.models.bundle import ModelBundle, ModelDefaults
from livetalk_core.models.transformer import LiveTalkTransformer3DModel
from livetalk_core.models.vae import WanVideoVAE

GEOMETRY = ChunkGeometry(frames=9, motion_frames=5, window_seconds=1)
SLICE = GEOMETRY.slice_samples
TRANSFORMER: dict[str, Any] = {
    "text_len": 4, "dim": 24, "ffn_dim": 32, "freq_dim": 16, "text_dim": 8, "num_heads": 2, "num_layers": 1,
    "intermediate_dim": 8, "output_dim": 12, "context_tokens": 2, "audio_layers": 2, "audio_channels": 16,
    "clip_dim": 16,
}  # fmt: skip
VAE: dict[str, Any] = {
    "base_dim": 4, "dim_mult": [1, 2, 2, 2], "num_res_blocks": 1, "temperal_downsample": [False, True, True],
}  # fmt: skip
AUDIO: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": [8] * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
IMAGE: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip


def _randomise(module: torch.nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                fan_in = max(1, parameter[0].numel())
                parameter.normal_(0, fan_in**-0.5, generator=generator)


@lru_cache(maxsize=2)
def tiny_bundle(seed: int = 0, dtype: torch.dtype = torch.float32) -> ModelBundle:
    """The model; shared between tests, so nobody may change it."""
    generator = torch.Generator().manual_seed(seed)
    # What is not made random below takes its first values from torch's own generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules: list[Any] = [
            LiveTalkTransformer3DModel(**TRANSFORMER), AutoencoderKLWan(**VAE),
            Wav2Vec2Model(Wav2Vec2Config(**AUDIO)), CLIPVisionModel(CLIPVisionConfig(**IMAGE)),
        ]  # fmt: skip
    for module in modules:
        _randomise(module, generator)
        module.eval().requires_grad_(False)
    transformer, vae, audio, image = modules
    defaults = ModelDefaults(width=32, height=32, geometry=GEOMETRY)
    return ModelBundle(
        transformer=transformer.to(dtype), vae=WanVideoVAE(vae.to(dtype)), audio_encoder=audio,
        audio_normalise=True, image_encoder=image, text_encoder=None, tokenizer=None, defaults=defaults,
        name="tiny", revision=f"seed-{seed}", device=torch.device("cpu"), dtype=dtype,
    )  # fmt: skip


def stream_config(**changes: Any) -> StreamConfig:
    """Settings that fit the tiny model."""
    audio = AudioConfig(mode=changes.pop("mode", "stream"))
    sampler = SamplerConfig(steps=changes.pop("steps", 2))
    names = CorrectionConfig.__struct_fields__
    correction = CorrectionConfig(**{name: changes.pop(name) for name in names if name in changes})
    settings: dict[str, Any] = {"width": 32, "height": 32, "seed": 5, "geometry": GEOMETRY, **changes}
    return StreamConfig(audio=audio, sampler=sampler, correction=correction, **settings)


def picture(seed: int = 0) -> Image.Image:
    """A small colourful picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def speech(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """Noise with a swelling envelope."""
    generator = np.random.default_rng(seed)
    envelope = 0.1 + 0.1 * np.sin(np.arange(samples) / 1500)
    return (generator.standard_normal(samples) * envelope).astype(np.float32)


def frames_of(chunks: Iterable[Chunk]) -> NDArray[np.uint8]:
    """All frames of a stream, uint8 [F,H,W,3]."""
    return np.concatenate([chunk.frames for chunk in chunks])
