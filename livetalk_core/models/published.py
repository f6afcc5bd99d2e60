"""Configurations of the published modules, for checkpoints without one: Wan2.1 VAE, umT5-xxl, CLIP ViT-H/14."""

from __future__ import annotations

from typing import Any

TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "layer_norm_epsilon": 1e-6,
    "dropout_rate": 0.0,
    "is_encoder_decoder": False,
}
"""Arguments of `transformers.UMT5Config`: umT5-xxl, encoder only."""

IMAGE_ENCODER: dict[str, Any] = {
    "image_size": 224,
    "patch_size": 14,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
}
"""Arguments of `transformers.CLIPVisionConfig`: open-clip ViT-H/14."""

VAE: dict[str, Any] = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
}
"""Arguments of `diffusers.AutoencoderKLWan`: the Wan2.1 VAE."""
