"""Projection of windowed speech features to the audio tokens of each latent frame."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import LayerNorm


class AudioProjection(nn.Module):
    """Speech features of every video frame -> `context_tokens` tokens per latent frame (published `AudioProjModel`).

    The first video frame is a latent frame of its own; every further latent frame covers `vae_scale` video
    frames, of which the first keeps its past half window, the last its future half, the others their centre.
    """

    def __init__(
        self,
        *,
        window: int,
        vae_scale: int,
        layers: int,
        channels: int,
        intermediate_dim: int,
        output_dim: int,
        context_tokens: int,
        norm_output: bool,
    ) -> None:
        super().__init__()
        self.window, self.vae_scale = window, vae_scale
        self.context_tokens, self.output_dim = context_tokens, output_dim
        group = window + vae_scale - 1
        self.proj1 = nn.Linear(window * layers * channels, intermediate_dim)
        self.proj1_vf = nn.Linear(group * layers * channels, intermediate_dim)
        self.proj2 = nn.Linear(intermediate_dim, intermediate_dim)
        self.proj3 = nn.Linear(intermediate_dim, context_tokens * output_dim)
        self.norm = LayerNorm(output_dim, eps=1e-5) if norm_output else nn.Identity()

    def forward(self, windows: Tensor) -> Tensor:
        """Windows ``[B, F, window, layers, channels]`` -> ``[B, T, context_tokens, output_dim]``.

        F = 1 + vae_scale*(T-1).
        """
        first = F.relu(self.proj1(windows[:, :1].flatten(2)))
        groups = torch.unflatten(windows[:, 1:], 1, (-1, self.vae_scale))
        centre = self.window // 2
        entries = torch.cat(
            [groups[:, :, 0, : centre + 1], groups[:, :, 1:-1, centre], groups[:, :, -1, centre:]], dim=2
        )
        hidden = torch.cat([first, F.relu(self.proj1_vf(entries.flatten(2)))], dim=1)
        tokens = self.proj3(F.relu(self.proj2(hidden)))
        result: Tensor = self.norm(tokens.unflatten(-1, (self.context_tokens, self.output_dim)))
        return result
