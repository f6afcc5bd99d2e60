"""Names and values survive the way from published checkpoints to the library classes and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from livetalk_core.errors import CheckpointError
from livetalk_core.models.library_names import image_prefix, stored_name
from livetalk_core.models.state_dict_adapter import Component, adapter_for, published_adapter

pytestmark = pytest.mark.unit


def tiny_text() -> nn.Module:
    return UMT5EncoderModel(
        UMT5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2,
                   feed_forward_proj="gated-gelu", is_encoder_decoder=False)
    )  # fmt: skip


def tiny_image() -> nn.Module:
    return CLIPVisionModel(
        CLIPVisionConfig(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
                         image_size=8, patch_size=4)
    )  # fmt: skip


def tiny_vae(residuals: int = 1, levels: int = 3) -> nn.Module:
    return AutoencoderKLWan(
        base_dim=4, z_dim=2, dim_mult=[1, 2, 2, 4][:levels], num_res_blocks=residuals,
        temperal_downsample=[False, True, True][: levels - 1],
        latents_mean=[0.0] * 2, latents_std=[1.0] * 2,
    )  # fmt: skip


CASES: list[tuple[Component, Callable[[], nn.Module]]] = [
    ("text_encoder", tiny_text),
    ("image_encoder", tiny_image),
    ("vae", tiny_vae),
    ("vae", lambda: tiny_vae(residuals=2, levels=4)),
    ("vae", lambda: tiny_vae(residuals=3, levels=1)),
]


@pytest.mark.parametrize(("component", "build"), CASES)
def test_round_trip(component: Component, build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    state = build().state_dict()
    exported = dict(published_adapter(component, state).to_published(reversed(list(state.items()))))
    adapter = adapter_for(component, exported)
    back = adapter.to_library(exported)
    assert state.keys() - back.keys() <= adapter.optional
    assert back.keys() <= state.keys()
    assert all(torch.equal(back[name], state[name]) for name in back)
    assert not any(name in state for name in exported if name.split(".")[0] != "conv1")


def test_image_qkv_is_split_in_order() -> None:
    qkv = torch.arange(24.0).view(24, 1).expand(24, 8)
    targets = adapter_for("image_encoder", ["cls_embedding"]).targets("transformer.1.attn.to_qkv.weight")
    assert targets is not None
    for (name, transform), letter, first in zip(targets, "qkv", (0, 8, 16), strict=True):
        assert name == f"{image_prefix()}encoder.layers.1.self_attn.{letter}_proj.weight"
        assert transform(qkv)[0, 0] == first and transform(qkv).shape == (8, 8)


def test_whole_published_clip_file_keeps_only_the_visual_tower() -> None:
    torch.manual_seed(0)
    state = tiny_image().state_dict()
    visual = dict(published_adapter("image_encoder", ["visual.cls_embedding"]).to_published(state.items()))
    assert all(name.startswith("visual.") for name in visual)
    file = visual | {
        name: torch.zeros(1) for name in ("textual.token_embedding.weight", "log_scale", "visual.head")
    }
    back = adapter_for("image_encoder", file).to_library(file)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("component", "build", "extras"),
    [
        ("text_encoder", tiny_text, ["spiece_model", "decoder.block.0.layer.0.SelfAttention.q.weight"]),
        ("image_encoder", tiny_image, ["visual_projection.weight", "vision_model.embeddings.position_ids"]),
        ("vae", tiny_vae, []),
    ],
)
def test_repackaged_files_keep_their_names(
    component: Component, build: Callable[[], nn.Module], extras: list[str]
) -> None:
    module = build()
    state = module.state_dict()
    file = {stored_name(module, name): value for name, value in state.items()}
    file |= {name: torch.zeros(1) for name in extras}
    assert adapter_for(component, file).to_library(file).keys() == state.keys()


def test_wav2vec2_pretraining_checkpoint() -> None:
    torch.manual_seed(0)
    model = Wav2Vec2Model(
        Wav2Vec2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
                       conv_dim=[4] * 7, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2)
    )  # fmt: skip
    state = model.state_dict()
    conv = "encoder.pos_conv_embed.conv"
    renamed = {
        f"{conv}.parametrizations.weight.original0": f"{conv}.weight_g",
        f"{conv}.parametrizations.weight.original1": f"{conv}.weight_v",
    }
    file = {f"wav2vec2.{renamed.get(name, name)}": value for name, value in state.items()}
    file |= {"quantizer.codevectors": torch.zeros(1), "project_q.weight": torch.zeros(1)}
    adapter = adapter_for("audio_encoder", file)
    back = adapter.to_library(file)
    assert state.keys() - back.keys() <= adapter.optional
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_unknown_names_are_reported() -> None:
    adapter = adapter_for("text_encoder", ["token_embedding.weight"])
    assert adapter.targets("blocks.0.attn.q.bias") is None
    with pytest.raises(CheckpointError, match=r"blocks\.0\.attn\.q\.bias"):
        adapter.to_library({"blocks.0.attn.q.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"text encoder.*'a\.b'"):
        adapter_for("text_encoder", ["c.d", "a.b"])


def test_incomplete_export_is_refused() -> None:
    state = tiny_image().state_dict()
    del state[f"{image_prefix()}encoder.layers.0.self_attn.k_proj.bias"]
    with pytest.raises(CheckpointError, match=r"transformer\.0\.attn\.to_qkv\.bias"):
        dict(published_adapter("image_encoder", state).to_published(state.items()))
    with pytest.raises(CheckpointError, match="no published name"):
        dict(published_adapter("vae", state).to_published([("classifier.weight", torch.zeros(1))]))
