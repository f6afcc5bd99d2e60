"""The VAE walk computes what the library's own forward computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan

from livetalk_core.models import vae as vae_module
from livetalk_core.models.vae import WanVideoVAE
from livetalk_core.models.vae_layers import ConvolutionForm, row_attention

pytestmark = pytest.mark.unit

PUBLISHED: dict[str, Any] = {"base_dim": 8, "num_res_blocks": 1}
EMBEDDED: dict[str, Any] = {
    "base_dim": 8,
    "dim_mult": [1, 1, 2],
    "num_res_blocks": 1,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "temperal_downsample": [True, True],
}


def random_vae(config: dict[str, Any]) -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = AutoencoderKLWan(**config).eval()
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            parameter.uniform_(0.5, 1.5) if "gamma" in name else parameter.uniform_(-0.1, 0.1)
    return vae


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("config", [PUBLISHED, EMBEDDED], ids=["published", "embedded"])
@pytest.mark.parametrize("frames", [1, 5, 9, 33])
@pytest.mark.parametrize("taps", [True, False])
@torch.no_grad()
def test_equals_library(
    config: dict[str, Any], frames: int, taps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae_module, "choose_form", lambda *_: ConvolutionForm(taps))
    library = random_vae(config)
    ours = WanVideoVAE(random_vae(config))
    video = torch.rand(1, 3, frames, 16, 32) * 2 - 1
    expected = (library.encode(video).latent_dist.mode() - ours.mean) * ours.inv_std
    latents = ours.encode(video)
    assert relative(latents, expected) < 2e-6
    decoded = library.decode(latents / ours.inv_std + ours.mean).sample
    assert relative(ours.decode(latents), decoded) < 5e-6


@pytest.mark.parametrize("group", [1, 2, 3, 64])
@torch.no_grad()
def test_groups_do_not_change_the_result(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = WanVideoVAE(random_vae(EMBEDDED))
    video = torch.rand(2, 3, 33, 32, 32) * 2 - 1
    latents = ours.encode(video)
    decoded = ours.decode(latents)
    monkeypatch.setattr(vae_module, "GROUP_LATENTS", group)
    assert relative(ours.encode(video), latents) < 1e-6
    assert relative(ours.decode(latents), decoded) < 2e-6


@pytest.mark.parametrize("config", [PUBLISHED, EMBEDDED], ids=["published", "embedded"])
@pytest.mark.parametrize("taps", [True, False])
@pytest.mark.parametrize(("given", "tail"), [(2, 31), (1, 32), (2, 3), (9, 24)])
@torch.no_grad()
def test_frames_that_repeat_are_coded_as_if_computed(
    config: dict[str, Any], taps: bool, given: int, tail: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vae_module, "choose_form", lambda *_: ConvolutionForm(taps))
    ours = WanVideoVAE(random_vae(config))
    video = torch.rand(1, 3, given, 32, 48) * 2 - 1
    whole = torch.cat([video, video[:, :, -1:].expand(-1, -1, tail, -1, -1)], dim=2)
    short, full = ours.encode(video, tail), ours.encode(whole)
    # One picture more or less in a conv2d may choose another kernel, which rounds differently.
    assert relative(short, full) < 1e-6 if taps else torch.equal(short, full)


def test_bfloat16_stays_close() -> None:
    ours = WanVideoVAE(random_vae(EMBEDDED))
    latents = torch.randn(1, 16, 3, 4, 4)
    with torch.no_grad():
        exact = ours.decode(latents)
        coarse = WanVideoVAE(random_vae(EMBEDDED).to(torch.bfloat16)).decode(latents)
    assert coarse.dtype == torch.bfloat16
    assert relative(coarse.float(), exact) < 5e-2


def test_gradient_reaches_every_parameter() -> None:
    ours = WanVideoVAE(random_vae(EMBEDDED).train())
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    mean, log_variance = ours.moments(video).chunk(2, dim=1)
    (ours.decode_raw(mean).square().mean() + log_variance.mean()).backward()
    missing = [name for name, p in ours.vae.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []


def test_residual_vae_is_refused() -> None:
    from livetalk_core.errors import CheckpointError

    vae = random_vae(PUBLISHED)
    vae.register_to_config(is_residual=True)
    with pytest.raises(CheckpointError, match="residual"):
        WanVideoVAE(vae)


@pytest.mark.parametrize("rows", range(1, 10))
def test_attention_of_any_number_of_rows_is_the_library_s(rows: int) -> None:
    q, k, v = (torch.randn(2, 1, length, 8) for length in (rows, 25, 25))
    found = row_attention(q, k, v)
    assert found.is_contiguous()
    torch.testing.assert_close(found, torch.nn.functional.scaled_dot_product_attention(q, k, v), rtol=1e-5, atol=1e-6)
