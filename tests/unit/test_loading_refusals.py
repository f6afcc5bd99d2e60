"""Models that cannot be loaded are told apart, with what is wrong and what is near."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from livetalk_core.errors import CheckpointError, DeviceError
from livetalk_core.loading import load_model, placement

pytestmark = pytest.mark.unit


def test_full_size_model_is_refused_before_anything_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "memory_of", lambda device: (2**33, 2**34))
    with pytest.raises(DeviceError, match=r"16\.0 GiB") as caught:
        load_model("random:14b", "cpu", "bf16")
    # 18.88 billion parameters of 2 bytes, then VAE and encoders.
    assert 38e9 < caught.value.details["needed_bytes"] < 45e9


def test_unknown_random_model_lists_the_known_ones() -> None:
    with pytest.raises(CheckpointError, match="random:900b") as caught:
        load_model("random:900b", "cpu", "fp32")
    assert "random:14b" in caught.value.hint


def test_unknown_folder_suggests_near_names(tiny_model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "presenter").symlink_to(tiny_model_folder)
    with pytest.raises(CheckpointError, match=r"Did you mean .*presenter"):
        load_model(tmp_path / "presentr", "cpu", "fp32")
    with pytest.raises(CheckpointError, match=r"not a model folder.*Did you mean .*presenter") as caught:
        load_model(tmp_path, "cpu", "fp32")
    assert "livetalk.json" in caught.value.hint


def test_incomplete_model_lists_everything_missing(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    shutil.rmtree(folder / "vae")
    (folder / "image_encoder" / "config.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, "cpu", "fp32")
    assert "vae/config.json" in caught.value.message and "image_encoder/config.json" in caught.value.message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"version": 99}, "version 99"),
        ({"format": "other"}, "format 'other'"),
        ({"surprise": 1}, "surprise"),
        ({"defaults": {"width": 64, "height": 64, "geometry": {"frames": 10}}}, "frames"),
    ],
)
def test_bad_manifest_is_refused(
    tiny_model_folder: Path, tmp_path: Path, change: dict[str, object], named: str
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    manifest = folder / "livetalk.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    with pytest.raises(CheckpointError, match=named) as caught:
        load_model(folder, "cpu", "fp32")
    assert str(manifest) in caught.value.message


def test_component_of_another_model_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    config = folder / "transformer" / "config.json"
    config.write_text(config.read_text().replace('"audio_channels": 32', '"audio_channels": 48'))
    with pytest.raises(CheckpointError, match=r"audio_proj\.proj1\.weight"):
        load_model(folder, "cpu", "fp32")
