"""The rotation tables equal complex rotation with the published per-axis frequencies."""

from __future__ import annotations

import pytest
import torch

from livetalk_core.models.rope import apply_rope, rope_table

pytestmark = pytest.mark.unit


def _complex_rope(x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
    """Token by token in complex128, straight from the definition."""
    d = x.shape[-1]
    dims = (d - 4 * (d // 6), 2 * (d // 6), 2 * (d // 6))
    out = torch.empty_like(x, dtype=torch.float64)
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)).contiguous())
    for token in range(x.shape[1]):
        rest, column = divmod(token, grid[2])
        frame, row = divmod(rest, grid[1])
        angles = torch.cat(
            [
                p * 10000.0 ** (-torch.arange(0, n, 2).double() / n)
                for p, n in zip((frame, row, column), dims, strict=True)
            ]
        )
        rotated = pairs[:, token] * torch.polar(torch.ones_like(angles), angles)
        out[:, token] = torch.view_as_real(rotated).flatten(-2)
    return out


@pytest.mark.parametrize(
    ("head_dim", "grid"), [(16, (3, 4, 6)), (48, (2, 3, 5)), (128, (9, 2, 1)), (6, (2, 2, 2))]
)
def test_equals_complex_rotation(head_dim: int, grid: tuple[int, int, int]) -> None:
    length = grid[0] * grid[1] * grid[2]
    x = torch.randn(2, length, 3, head_dim, generator=torch.Generator().manual_seed(0))
    rotated = apply_rope(x, *rope_table(*grid, head_dim))
    torch.testing.assert_close(rotated.double(), _complex_rope(x, grid), rtol=0, atol=1e-6)


def test_published_channel_split() -> None:
    cos, sin = rope_table(2, 2, 2, 128)
    assert cos.shape == sin.shape == (8, 64)
    angle = torch.atan2(sin, cos)
    # Token 1 = column 1, token 2 = row 1, token 4 = frame 1: only that axis' channels turn.
    for token, channels in ((4, range(22)), (2, range(22, 43)), (1, range(43, 64))):
        assert set(torch.nonzero(angle[token]).flatten().tolist()) == set(channels)


def test_rotation_stays_float32_for_low_precision_input() -> None:
    x = torch.randn(1, 8, 1, 12, dtype=torch.bfloat16)
    rotated = apply_rope(x, *rope_table(2, 2, 2, 12))
    assert rotated.dtype == torch.float32
    torch.testing.assert_close(rotated.norm(), x.float().norm())
