"""Approximate tiles: they cover everything, blend to one, and are exact where the decoder looks no further."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_model import tiny_modules

from livetalk_core.models.vae import WanVideoVAE
from livetalk_core.parallel.groups import Groups
from livetalk_core.parallel.vae_tiles import TiledVAE, tile_spans

pytestmark = pytest.mark.unit

ALONE = Groups(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("size", "spans"),
    [(5, [(0, 5)]), (8, [(0, 8)]), (9, [(0, 8), (1, 9)]), (14, [(0, 8), (6, 14)]), (15, [(0, 8), (6, 14), (7, 15)])],
)
def test_tiles_cover_a_side(size: int, spans: list[tuple[int, int]]) -> None:
    assert tile_spans(size, tile=8, overlap=2) == spans


class LocalVAE:
    """A decoder that looks at nothing but the cell itself."""

    config = SimpleNamespace(scale_factor_spatial=8)
    dtype, device = torch.float32, torch.device("cpu")

    def decode_groups(self, latents: torch.Tensor, group: int) -> Any:
        big = latents[:, :3].repeat_interleave(8, 3).repeat_interleave(8, 4)
        return iter(big.split(group, dim=2))

    def group_frames(self, frames: int, group: int) -> list[int]:
        return [min(group, frames - first) for first in range(0, frames, group)]


@pytest.mark.parametrize("size", [(5, 4), (9, 23), (16, 8)])
def test_blending_changes_nothing_where_tiles_agree(size: tuple[int, int]) -> None:
    vae: Any = LocalVAE()
    latents = torch.rand(1, 16, 5, *size) * 2 - 1
    whole = torch.cat(list(TiledVAE(vae, ALONE, 1000, 2).decode_frames(latents, 2)))
    tiled = torch.cat(list(TiledVAE(vae, ALONE, 8, 2).decode_frames(latents, 2)))
    assert whole.shape == (5, size[0] * 8, size[1] * 8, 3)
    assert (whole.int() - tiled.int()).abs().max() <= 1


def test_one_tile_is_exact_and_several_are_not() -> None:
    vae = WanVideoVAE(tiny_modules(1)["vae"])
    latents = torch.randn(1, 16, 2, 6, 10, generator=torch.Generator().manual_seed(0))
    exact = torch.cat([part for part in vae.decode_frames(latents) if part is not None])
    one = torch.cat(list(TiledVAE(vae, ALONE).decode_frames(latents)))
    several = torch.cat(list(TiledVAE(vae, ALONE, 6, 2).decode_frames(latents)))
    assert torch.equal(one, exact)
    assert several.shape == exact.shape and not torch.equal(several, exact)
