"""The transformer equals a plain second form, in every way it may be run."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformer_reference import velocity

from livetalk_core.errors import ConfigError
from livetalk_core.models.attention import (
    LocalShard,
    attention_function,
    frame_attention,
    frame_segments,
    sdpa,
)
from livetalk_core.models.capture import capture_intermediates
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

pytestmark = pytest.mark.unit

CONFIG: dict[str, Any] = {
    "text_len": 6, "dim": 48, "ffn_dim": 80, "freq_dim": 24, "text_dim": 20, "num_heads": 4, "num_layers": 2,
    "intermediate_dim": 16, "output_dim": 24, "context_tokens": 3, "audio_layers": 2, "audio_channels": 10,
    "clip_dim": 14,
}  # fmt: skip
T, H, W = 3, 4, 6


def make_model(seed: int = 0, **changes: Any) -> LiveTalkTransformer3DModel:
    """A small model without any zero or one among its weights."""
    model = LiveTalkTransformer3DModel(**(CONFIG | changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            base = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            p.copy_(base + 0.1 * torch.randn(p.shape, generator=generator))
    return model


def make_inputs(batch: int = 1, seed: int = 1) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "latents": torch.randn(batch, 16, T, H, W, generator=g),
        "y": torch.randn(batch, 20, T, H, W, generator=g),
        "timestep": torch.rand(batch, generator=g) * 1000,
        "context": torch.randn(batch, 4, 20, generator=g),
        "clip": torch.randn(batch, 5, 14, generator=g),
        "windows": torch.randn(batch, 1 + 4 * (T - 1), 5, 2, 10, generator=g),
    }


def run(model: LiveTalkTransformer3DModel, x: dict[str, Tensor]) -> Tensor:
    stream, audio = model.encode_stream(x["context"], x["clip"]), model.encode_audio(x["windows"])
    return model(x["latents"], x["y"], x["timestep"], stream, audio)


def expected(model: LiveTalkTransformer3DModel, x: dict[str, Tensor]) -> Tensor:
    samples = []
    for i in range(x["latents"].shape[0]):
        one = {k: v[i] for k, v in x.items()}
        samples.append(
            velocity(model.state_dict(), 4, 6, 3, one["latents"], one["y"], float(one["timestep"]),
                     one["context"], one["clip"], one["windows"])
        )  # fmt: skip
    return torch.stack(samples)


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def test_equals_the_plain_form_for_a_batch() -> None:
    model, x = make_model(), make_inputs(batch=2)
    with torch.inference_mode():
        assert relative(run(model, x), expected(model, x)) < 2e-6


def test_training_form_equals_inference_form() -> None:
    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        inference = run(model, x)
    training = run(model, x)  # also proves that a table cached by inference serves training
    training.sum().backward()
    assert relative(training.detach(), inference) < 1e-6


def test_bfloat16_follows_float32_and_returns_float32() -> None:
    model, x = make_model(), make_inputs()
    low = copy.deepcopy(model).to(torch.bfloat16)
    with torch.inference_mode():
        v = run(low, x)
        assert v.dtype == torch.float32
        assert relative(v, run(model, x)) < 2e-2


@pytest.mark.parametrize("part", ["modulation", "time_embedding", "time_projection", "head", "norm3"])
def test_parts_kept_in_float32_change_nothing(part: str) -> None:
    """bf16 weights up-cast per call and the same weights stored as float32 are the same function."""
    model, x = make_model().to(torch.bfloat16), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
        for name, p in model.named_parameters():
            if part in name.split("."):
                p.data = p.data.float()
        assert torch.equal(run(model, x), before)


def test_autocast_trains_every_parameter_in_float32() -> None:
    model, x = make_model(), make_inputs(batch=2)
    with torch.autocast("cpu", torch.bfloat16), capture_intermediates(model) as stages:
        v = run(model, x)
    v.square().mean().backward()
    assert v.dtype == stages["block1"].dtype == stages["head"].dtype == torch.float32
    assert stages["time_projection"].dtype == torch.float32
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert relative(v.detach(), expected(model, x)) < 2e-2


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    model, x = make_model(), make_inputs()
    run(model, x).square().mean().backward()
    plain = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model.enable_gradient_checkpointing()
    run(model, x).square().mean().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, plain[name], msg=name)


def test_conditioning_of_one_sample_serves_a_batch() -> None:
    model, x = make_model(), make_inputs(batch=2)
    with torch.inference_mode():
        stream, audio = (
            model.encode_stream(x["context"][:1], x["clip"][:1]),
            model.encode_audio(x["windows"][:1]),
        )
        shared = model(x["latents"], x["y"], x["timestep"], stream, audio)
        repeated = {k: v[:1].expand_as(v) if k in ("context", "clip", "windows") else v for k, v in x.items()}
        assert relative(shared, run(model, repeated)) < 1e-6


def test_text_padding_is_attended() -> None:
    """Missing rows act as zero rows, not as absent ones."""
    model, x = make_model(), make_inputs()
    padded = torch.nn.functional.pad(x["context"], (0, 0, 0, 2))
    longer = make_model(text_len=8)
    with torch.inference_mode():
        assert torch.equal(run(model, x), run(model, x | {"context": padded}))
        assert relative(run(longer, x), run(model, x)) > 1e-4


@pytest.mark.parametrize(
    "cuts", [(0, 18), (0, 6, 12, 18), (0, 5, 18), (0, 1, 8, 17, 18), (0, 7, 10, 18), (0, 2, 4, 18)]
)
def test_audio_attention_of_uneven_token_ranges(cuts: tuple[int, ...]) -> None:
    frames, per_frame = 3, 6
    g = torch.Generator().manual_seed(3)
    q = torch.randn(2, 18, 2, 8, generator=g)
    k, v = torch.randn(2, 2, 3, 5, 2, 8, generator=g)
    naive = torch.cat([sdpa(q[:, 6 * f : 6 * f + 6], k[:, f], v[:, f]) for f in range(3)], dim=1)
    parts = [
        frame_attention(q[:, a:b], k, v, frame_segments(a, b - a, per_frame, frames))
        for a, b in pairwise(cuts)
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), naive)


def test_padding_of_a_shard_is_finite_and_changes_nothing() -> None:
    g = torch.Generator().manual_seed(3)
    q, (k, v) = torch.randn(1, 18, 2, 8, generator=g), torch.randn(2, 1, 3, 5, 2, 8, generator=g)
    padded = torch.cat([q[:, 14:], torch.zeros(1, 3, 2, 8)], dim=1)
    out = frame_attention(padded, k, v, frame_segments(14, 7, 6, 3))
    whole = frame_attention(q, k, v, frame_segments(0, 18, 6, 3))
    torch.testing.assert_close(out[:, :4], whole[:, 14:])
    assert out.shape == padded.shape and bool(out.isfinite().all())
    assert frame_segments(18, 4, 6, 3) == ((2, 1, 4),)  # a rank with nothing but padding


class _PaddedShard(LocalShard):
    """One rank that holds all tokens and three of padding, which it keeps out of the keys."""

    def split(self, tokens: Tensor) -> Tensor:
        padding = tokens.new_zeros(tokens.shape[0], 3, *tokens.shape[2:])
        return torch.cat([tokens, padding], dim=1)

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return sdpa(query, key[:, :-3], value[:, :-3])


def test_a_shard_may_pad() -> None:
    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
        model.use_sequence(_PaddedShard())
        assert relative(run(model, x), before) < 1e-6
        model.use_sequence(LocalShard())
        assert torch.equal(run(model, x), before)


class _Linears(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.mm, torch.ops.aten.bmm)
        return func(*args, **(kwargs or {}))


def test_a_step_recomputes_no_conditioning() -> None:
    model, x = make_model(), make_inputs()
    with torch.no_grad():
        stream, audio = model.encode_stream(x["context"], x["clip"]), model.encode_audio(x["windows"])
        with _Linears() as mode:
            model(x["latents"], x["y"], x["timestep"], stream, audio)
    # patch 1, time 3, head 1; per block: self attention 4, cross q and o, audio q and proj, feed-forward 2.
    assert mode.count == 5 + 2 * (4 + 2 + 2 + 2)


def test_published_config_is_accepted(tmp_path: Path) -> None:
    published = {
        "_class_name": "WanModel", "_diffusers_version": "0.30.0", "model_type": "i2v", "text_len": 6,
        "in_dim": 36,
        "dim": 48, "ffn_dim": 80, "freq_dim": 24, "out_dim": 16, "num_heads": 4, "num_layers": 2, "eps": 1e-6,
        "an_unknown_key": 3,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(published))
    config = LiveTalkTransformer3DModel.load_config(tmp_path)
    model = LiveTalkTransformer3DModel.from_config(config, intermediate_dim=8, text_dim=8, output_dim=8)
    assert model.config.audio_layers == 12 and model.config.clip_dim == 1280
    assert model.patch_embedding.weight.shape == (48, 36, 1, 2, 2)


def test_saved_model_loads_equal(tmp_path: Path) -> None:
    model, x = make_model(), make_inputs()
    model.save_pretrained(tmp_path)
    loaded = LiveTalkTransformer3DModel.from_pretrained(tmp_path)
    low = LiveTalkTransformer3DModel.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert low.residual_dtype == torch.bfloat16
    assert low.blocks[0].modulation.dtype == low.head.head.weight.dtype == torch.float32
    with torch.inference_mode():
        assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())
        assert relative(run(loaded, x), run(model, x)) < 1e-6


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "t2v"}, "t2v"), ({"patch_size": (1, 2)}, "patch_size"), ({"num_heads": 5}, "heads"),
        ({"window_size": (8, 8)}, "window_size"), ({"freq_dim": 25}, "freq_dim"),
        ({"audio_window": 4}, "audio_window"), ({"vae_scale": 1}, "vae_scale"),
    ],
)  # fmt: skip
def test_unknown_variants_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        make_model(**change)


def test_wrong_shapes_are_refused() -> None:
    model, x = make_model(), make_inputs()
    with pytest.raises(ConfigError, match="latent frames"):
        run(model, x | {"windows": x["windows"][:, :5]})
    with pytest.raises(ConfigError, match="do not fill"):
        model.encode_audio(x["windows"][:, :6])
    with pytest.raises(ConfigError, match="at most 6"):
        model.encode_stream(torch.zeros(1, 7, 20), x["clip"])
    with pytest.raises(ConfigError, match="patches"):
        run(model, x | {"latents": x["latents"][..., :5], "y": x["y"][..., :5]})
    with pytest.raises(ConfigError, match="36 channels"):
        run(model, x | {"y": x["y"][:, 1:]})


def test_initial_weights_are_a_function_of_the_seed() -> None:
    a, b, c = (LiveTalkTransformer3DModel(**CONFIG) for _ in range(3))
    for model, seed in ((a, 7), (b, 7), (c, 8)):
        model.init_weights(seed)
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    assert all(torch.equal(p, q) for p, q in pairs)
    assert not torch.equal(a.blocks[0].ffn[0].weight, c.blocks[0].ffn[0].weight)
    with torch.inference_mode():
        assert not run(a, make_inputs()).any()
    assert bool(a.blocks[1].modulation.any()) and bool((a.blocks[0].norm3.weight == 1).all())


def test_captured_stages_have_published_names() -> None:
    model = make_model()
    with torch.inference_mode(), capture_intermediates(model) as stages:
        run(model, make_inputs())
    assert stages["patch_embedding"].shape == (1, 48, T, H // 2, W // 2)
    assert stages["block1.audio_cross_attn"].shape == (1, T * H * W // 4, 48)
    assert len(stages) == 7 + 2 * 5
    assert not model.head._forward_hooks


def test_lora_adapter_can_be_added() -> None:
    from peft import LoraConfig

    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
    model.add_adapter(
        LoraConfig(r=2, target_modules=["self_attn.q", "cross_attn.k", "ffn.0"], init_lora_weights=False)
    )
    with torch.inference_mode():
        assert relative(run(model, x), before) > 1e-4
        model.disable_adapters()
        assert relative(run(model, x), before) < 1e-6


def test_layerwise_casting_stores_bf16_and_computes_float32() -> None:
    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
        model.enable_layerwise_casting(storage_dtype=torch.bfloat16, compute_dtype=torch.float32)
        assert model.blocks[0].ffn[0].weight.dtype == torch.bfloat16
        assert relative(run(model, x), before) < 2e-2


def test_regional_compilation_changes_nothing() -> None:
    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
        model.compile_repeated_blocks(backend="eager", fullgraph=True)
        assert relative(run(model, x), before) < 1e-6


def test_whole_model_traces_without_graph_breaks() -> None:
    model, x = make_model(), make_inputs()
    with torch.no_grad():
        before = run(model, x)
        compiled = torch.compile(run, backend="eager", fullgraph=True)
        assert relative(compiled(model, x), before) < 1e-6


def test_attention_backends_by_name() -> None:
    q, k, v = torch.randn(3, 1, 5, 2, 8)
    torch.testing.assert_close(
        attention_function("_native_math")(q, k, v), attention_function("native")(q, k, v)
    )
    with pytest.raises(ConfigError, match="no_such_kernel"):
        attention_function("no_such_kernel")


def test_pictures_of_many_sizes_leave_a_bounded_number_of_tables_behind() -> None:
    model = make_model()
    sizes = [(1, 2, 2 + index) for index in range(40)]
    first = model._rotations(*sizes[0], torch.device("cpu"))
    for size in sizes:
        model._rotations(*size, torch.device("cpu"))
    assert len(model._rope_cache) < len(sizes)
    for again, before in zip(model._rotations(*sizes[0], torch.device("cpu")), first, strict=True):
        assert torch.equal(again, before), "a table that was dropped is made again, the same"
