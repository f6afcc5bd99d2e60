"""The full-size modules, on the meta device, have exactly the published tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from livetalk_core.models import published
from livetalk_core.models.state_dict_adapter import Component, adapter_for, published_adapter
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

pytestmark = pytest.mark.unit

Shapes = dict[str, tuple[int, ...]]
GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "state_dict_shapes.json").read_text()
)


def golden_shapes(name: str) -> Shapes:
    """The recorded names and shapes, layer numbers written out."""
    shapes: Shapes = {}
    for pattern, (shape, count) in GOLDEN[name]["patterns"].items():
        shapes.update({pattern.replace("{i}", str(i)): tuple(shape) for i in range(count)})
    return shapes


def shapes_of(module: nn.Module) -> Shapes:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        if name == "t5":
            return UMT5EncoderModel(UMT5Config(**published.TEXT_ENCODER))
        if name == "clip_visual":
            return CLIPVisionModel(CLIPVisionConfig(**published.IMAGE_ENCODER))
        return AutoencoderKLWan(**published.VAE)


CASES: list[tuple[str, Component]] = [
    ("t5", "text_encoder"), ("clip_visual", "image_encoder"), ("vae", "vae"),
]  # fmt: skip


def test_transformer_is_the_published_one() -> None:
    with torch.device("meta"):
        model = LiveTalkTransformer3DModel()
    assert shapes_of(model) == golden_shapes("dit")
    assert sum(p.numel() for p in model.parameters()) == 18_882_046_784 == GOLDEN["dit"]["params"]


@pytest.mark.parametrize(("name", "component"), CASES)
def test_published_tensors_fill_the_library_module_exactly(name: str, component: Component) -> None:
    recorded = golden_shapes(name)
    adapter = adapter_for(component, recorded)
    filled: Shapes = {}
    for key, shape in recorded.items():
        if not adapter.ignored(key):
            for target, transform in adapter.targets(key) or []:
                assert target not in filled
                filled[target] = tuple(transform(torch.empty(shape, device="meta")).shape)
    expected = shapes_of(build(name))
    assert filled.items() <= expected.items()
    assert expected.keys() - filled.keys() <= adapter.optional
    assert sum(torch.Size(s).numel() for s in recorded.values()) == GOLDEN[name]["params"]


@pytest.mark.parametrize(("name", "component"), CASES)
def test_library_module_exports_the_published_tensors(name: str, component: Component) -> None:
    state = build(name).state_dict()
    exported = {
        key: tuple(value.shape)
        for key, value in published_adapter(component, state).to_published(state.items())
    }
    recorded = golden_shapes(name)
    recorded.pop("head", None)  # CLIP's projection to the space shared with text has no use here
    assert exported == recorded
