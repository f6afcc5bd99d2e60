"""Layers whose numeric precision is part of the published function."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer norm computed in float32 with up-cast weights; the result has the input's dtype."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` -> ``[..., C]``."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm: statistic in float32, cast to the input's dtype, then times the weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``[..., C]`` -> ``[..., C]``."""
        return F.rms_norm(x.float(), self.weight.shape, None, self.eps).to(x.dtype) * self.weight


class Float32Linear(nn.Linear):
    """Linear layer computed in float32 with up-cast weights, inside autocast too."""

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in]`` -> float32 ``[..., out]``."""
        with torch.autocast(x.device.type, enabled=False):
            bias = None if self.bias is None else self.bias.float()
            return F.linear(x.float(), self.weight.float(), bias)


class PatchEmbedding(nn.Conv3d):
    """Non-overlapping patch convolution computed as one matrix product (equal up to summation order)."""

    def __init__(self, in_channels: int, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__(in_channels, dim, kernel_size=patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, h, w]`` -> ``[B, dim, T/p, h/q, w/r]``, whose tokens are contiguous per position."""
        batch, channels, frames, height, width = x.shape
        p, q, r = self.kernel_size
        grid = (frames // p, height // q, width // r)
        patches = x.reshape(batch, channels, grid[0], p, grid[1], q, grid[2], r)
        patches = patches.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, grid[0] * grid[1] * grid[2], -1)
        tokens = F.linear(patches, self.weight.flatten(1), self.bias)
        return torch.unflatten(tokens.transpose(1, 2), 2, grid)
