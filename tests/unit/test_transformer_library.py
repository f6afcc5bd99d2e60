"""What the library does with the transformer: configurations, files, adapters, casting, compilation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_models import make_inputs, make_model, relative, run

from livetalk_core.errors import ConfigError
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

pytestmark = pytest.mark.unit


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


def test_lora_adapter_can_be_added() -> None:
    from peft import LoraConfig

    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
    model.add_adapter(LoraConfig(r=2, target_modules=["self_attn.q", "cross_attn.k", "ffn.0"], init_lora_weights=False))
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
    model, x = make_model(num_layers=1), make_inputs()
    with torch.no_grad():
        before = run(model, x)
        compiled = torch.compile(run, backend="eager", fullgraph=True)
        assert relative(compiled(model, x), before) < 1e-6
