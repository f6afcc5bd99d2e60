"""The embedded model's video VAE before its training."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import nn

VAE_CONFIG: dict[str, Any] = {
    "base_dim": 32,
    "dim_mult": [1, 1, 2],
    "z_dim": 16,
    "num_res_blocks": 1,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "temperal_downsample": [True, True],
    "scale_factor_spatial": 8,
}


def new_vae(seed: int) -> AutoencoderKLWan:
    """A VAE that starts as an image VAE: older temporal taps zero, time up- and down-sampling as repeat and mean.

    The first video batches then continue from what the image stage learnt.
    """
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(**VAE_CONFIG)
    with torch.no_grad():
        for name, layer in vae.named_modules():
            if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3:
                if name.endswith("time_conv"):
                    _start_time_conv(layer)
                else:
                    layer.weight[:, :, :2] = 0
                    layer.weight[:, :, 2] *= 1.7
    return vae


def _start_time_conv(layer: Any) -> None:
    out_channels, channels = layer.weight.shape[:2]
    identity = torch.eye(channels)
    layer.weight.zero_()
    layer.bias.zero_()
    if out_channels == 2 * channels:
        layer.weight[:, :, 2, 0, 0] = torch.cat([identity, identity]) + 0.02 * torch.randn(out_channels, channels)
    else:
        for tap in range(3):
            layer.weight[:, :, tap, 0, 0] = identity / 3 + 0.01 * torch.randn(channels, channels)
