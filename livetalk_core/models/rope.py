"""Three-axis rotary position embedding of the transformer's self attention."""

from __future__ import annotations

import torch
from torch import Tensor

_BASE = 10000.0


def rope_table(
    frames: int, rows: int, columns: int, head_dim: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every token's rotation angles, float32 ``[L, head_dim/2]``, L = frames*rows*columns.

    Tokens run row-major over (frame, row, column). The head_dim/2 complex channels are shared out as
    (c - 2*(c//3), c//3, c//3); every axis has frequencies of its own base dimension. Angles are computed in
    float64, so that the table is exact to float32. Source: RoPE of the published `WanModel`.
    """
    channels = head_dim // 2
    third = channels // 3
    angles = [
        _axis_angles(length, count)
        for length, count in zip((frames, rows, columns), (channels - 2 * third, third, third), strict=True)
    ]
    grid = torch.cat(
        [
            angles[0][:, None, None].expand(frames, rows, columns, -1),
            angles[1][None, :, None].expand(frames, rows, columns, -1),
            angles[2][None, None, :].expand(frames, rows, columns, -1),
        ],
        dim=-1,
    ).flatten(0, 2)
    return grid.cos().to(device, torch.float32), grid.sin().to(device, torch.float32)


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the interleaved channel pairs of ``x [B, L, N, D]`` by ``cos, sin [L, D/2]``; returns float32.

    The rotation runs in float32 whatever the dtype of ``x``, as in the published model.
    """
    real, imaginary = torch.unflatten(x.float(), -1, (-1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    return torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1).flatten(-2)


def _axis_angles(length: int, channels: int) -> Tensor:
    """Angles of one axis, float64 ``[length, channels]``; its base dimension is twice its channel count."""
    exponents = torch.arange(channels, dtype=torch.float64) / max(channels, 1)
    return torch.outer(torch.arange(length, dtype=torch.float64), _BASE**-exponents)
