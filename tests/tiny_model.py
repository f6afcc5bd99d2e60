"""A tiny model with random weights in LiveTalk's own folder layout, for tests of everything above loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from transformers import CLIPVisionConfig, CLIPVisionModel, Wav2Vec2Config, Wav2Vec2Model

from livetalk_core.config import ChunkGeometry
from livetalk_core.loading.save import save_model
from livetalk_core.models.bundle import ModelDefaults
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

AUDIO_LAYERS = 3
AUDIO_CHANNELS = 32
IMAGE_WIDTH = 32


def tiny_modules(seed: int = 0) -> dict[str, Any]:
    """The four modules with random float32 weights, a function of `seed`."""
    torch.manual_seed(seed)
    transformer = LiveTalkTransformer3DModel(
        text_len=8,
        dim=48,
        ffn_dim=96,
        freq_dim=32,
        text_dim=16,
        num_heads=2,
        num_layers=2,
        intermediate_dim=32,
        output_dim=24,
        context_tokens=4,
        audio_layers=AUDIO_LAYERS,
        audio_channels=AUDIO_CHANNELS,
        clip_dim=IMAGE_WIDTH,
    )
    vae = AutoencoderKLWan(
        base_dim=16,
        z_dim=16,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=8,
    )
    image_encoder = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=IMAGE_WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=224,
            patch_size=56,
        )
    )
    audio_encoder = Wav2Vec2Model(
        Wav2Vec2Config(
            hidden_size=AUDIO_CHANNELS,
            intermediate_size=64,
            num_hidden_layers=AUDIO_LAYERS,
            num_attention_heads=2,
            conv_dim=[32] * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
        )
    )
    # The head starts at zero in training; here every output must depend on every weight.
    torch.nn.init.normal_(transformer.head.head.weight, std=0.05)
    modules = {
        "transformer": transformer,
        "vae": vae,
        "audio_encoder": audio_encoder,
        "image_encoder": image_encoder,
    }
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def write_tiny_model(path: Path, seed: int = 0) -> Path:
    """Write a complete model folder (9 MB, no text encoder, 64x64, chunks of 9 frames) and return it."""
    save_model(
        path,
        **tiny_modules(seed),
        audio_normalise=True,
        defaults=ModelDefaults(
            width=64, height=64, geometry=ChunkGeometry(frames=9, motion_frames=5, window_seconds=1)
        ),
        name=f"tiny-{seed}",
        license="Apache-2.0",
    )
    return path
