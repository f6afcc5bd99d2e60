"""The transformer equals a plain second form, in every way it may be run."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformer_models import CONFIG, H, T, W, expected, make_inputs, make_model, relative, run

from livetalk_core.errors import ConfigError
from livetalk_core.models.capture import capture_intermediates
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

pytestmark = pytest.mark.unit


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


def test_pictures_of_many_sizes_leave_a_bounded_number_of_tables_behind() -> None:
    model = make_model()
    sizes = [(1, 2, 2 + index) for index in range(40)]
    first = model._rotations(*sizes[0], torch.device("cpu"))
    for size in sizes:
        model._rotations(*size, torch.device("cpu"))
    assert len(model._rope_cache) < len(sizes)
    for again, before in zip(model._rotations(*sizes[0], torch.device("cpu")), first, strict=True):
        assert torch.equal(again, before), "a table that was dropped is made again, the same"
