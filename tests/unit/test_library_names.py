"""A model on disk is one format, whichever releases of the libraries wrote it or read it."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPVisionConfig

from livetalk_core.errors import MissingDependencyError
from livetalk_core.loading import load_model, save_model
from livetalk_core.loading.layout import EMBEDDED_FOLDER
from livetalk_core.models import library_names
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.models.library_names import IMAGE_TOWER

pytestmark = pytest.mark.unit

INSTALLED = ", ".join(f"{library} {version(library)}" for library in ("transformers", "diffusers"))


def save(bundle: ModelBundle, folder: Path) -> Path:
    save_model(
        folder,
        transformer=bundle.transformer,
        vae=bundle.vae,
        audio_encoder=bundle.audio_encoder,
        audio_normalise=bundle.audio_normalise,
        image_encoder=bundle.image_encoder,
        defaults=bundle.defaults,
        name=bundle.name,
    )
    return folder


def shapes(folder: Path) -> dict[str, list[int]]:
    """Name and shape of every tensor in a model folder, each name with its sub-folder in front."""
    result: dict[str, list[int]] = {}
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            result |= {f"{path.parent.name}: {name}": file.get_slice(name).get_shape() for name in names}
    return result


def configs(folder: Path) -> dict[str, dict[str, Any]]:
    return {path.parent.name: json.loads(path.read_text()) for path in folder.rglob("config.json")}


def test_saving_the_embedded_model_gives_its_files_again(tmp_path: Path) -> None:
    """The files in the package were written once; if this fails, a library has renamed weights or settings."""
    again = save(load_model(None, "cpu", "fp32"), tmp_path / "again")
    renamed = f"{INSTALLED} has other names than files have: livetalk_core/models/library_names.py has to learn them"
    assert shapes(again) == shapes(EMBEDDED_FOLDER), renamed
    assert configs(again) == configs(EMBEDDED_FOLDER), renamed


def test_image_encoder_is_read_with_and_without_its_prefix(tmp_path: Path, tiny_model_folder: Path) -> None:
    """A folder that another program wrote with transformers 5 may lack the prefix."""
    expected = load_model(tiny_model_folder, "cpu", "fp32")
    folder = save(expected, tmp_path / "bare")
    weights = folder / "image_encoder" / "model.safetensors"
    state = load_file(weights)
    assert all(name.startswith(IMAGE_TOWER) for name in state)
    save_file({name.removeprefix(IMAGE_TOWER): value for name, value in state.items()}, weights)
    loaded = load_model(folder, "cpu", "fp32").image_encoder.state_dict()
    for name, value in expected.image_encoder.state_dict().items():
        assert torch.equal(loaded[name], value)


def test_a_release_with_unknown_names_is_not_blamed_on_the_file(
    monkeypatch: pytest.MonkeyPatch, tiny_model_folder: Path
) -> None:
    class Renamed(nn.Module):
        def __init__(self, config: CLIPVisionConfig) -> None:
            super().__init__()
            self.tower = nn.Linear(config.hidden_size, 1)

    library_names.image_prefix.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(library_names, "CLIPVisionModel", Renamed)
        with pytest.raises(MissingDependencyError, match=f"transformers {version('transformers')} "):
            load_model(tiny_model_folder, "cpu", "fp32")
    assert library_names.image_prefix() in (IMAGE_TOWER, "")
