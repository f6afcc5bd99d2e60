"""The published function on a small part of the recorded vectors, through the conformance check itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from livetalk_core.conformance import run
from livetalk_core.errors import CheckpointError, ConfigError, OutputError

pytestmark = pytest.mark.golden

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("folder", "components"),
    [("published", {"color", "audio", "t5"}), ("small", {"vae", "dit", "chunk"})],
)
def test_recorded_results_are_met(folder: str, components: set[str], tmp_path: Path) -> None:
    report = run(HERE / folder, tmp_path)
    assert {row.component for row in report.rows} == components
    assert [row for row in report.rows if not row.ok] == []
    assert report.ok and json.loads(report.to_json())["ok"]
    dumped = {path.name: load_file(path) for path in tmp_path.iterdir()}
    assert set(dumped) == {f"{name}_io.safetensors" for name in components}
    for row in report.rows:
        recorded = load_file(HERE / folder / f"{row.component}_io.safetensors")[row.tensor]
        assert dumped[f"{row.component}_io.safetensors"][row.tensor].shape == recorded.shape


def test_golden_files_stay_small() -> None:
    kept = [path for path in HERE.rglob("*") if path.suffix in {".safetensors", ".json"}]
    assert 0 < sum(path.stat().st_size for path in kept) <= 2_000_000


@pytest.fixture
def color(tmp_path: Path) -> Path:
    """A folder with the colour vectors alone."""
    for name in ("meta.json", "color_io.safetensors"):
        shutil.copy(HERE / "published" / name, tmp_path)
    return tmp_path


def test_absent_pairs_are_listed(color: Path) -> None:
    report = run(color)
    assert report.ok and len(report.absent) == 6
    assert "chunk: no dit_weights.safetensors, vae_weights.safetensors, chunk_io.safetensors" in report.absent


def test_a_wrong_number_is_a_miss(color: Path) -> None:
    tensors = load_file(color / "color_io.safetensors")
    tensors["out.strength_1.0"] = tensors["out.strength_1.0"] * 1.0001
    tensors["out.strength_0.3"] = tensors["out.strength_0.3"][:, :, :2].clone()
    tensors["out.unheard_of"] = tensors["in.reference"].clone()
    save_file(tensors, color / "color_io.safetensors")
    report = run(color)
    verdicts = {row.tensor: row.ok for row in report.rows}
    assert verdicts == {
        "out.strength_0.3": False, "out.strength_1.0": False, "out.resize_centercrop_64x96": True,
    }  # fmt: skip
    assert not report.ok
    assert "color: out.unheard_of is not computed" in report.absent
    plain = json.loads(report.to_json())
    assert plain["rows"][0]["rel"] is None or plain["rows"][1]["rel"] is None


def test_an_empty_folder_proves_nothing(color: Path) -> None:
    (color / "color_io.safetensors").unlink()
    assert not run(color).ok


def test_folders_that_are_no_vectors_are_refused(color: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"meta\.json cannot be read"):
        run(tmp_path / "nowhere")
    (color / "color_io.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="color_io"):
        run(color)
    (color / "meta.json").write_text("{}")
    with pytest.raises(ConfigError, match="'configs'"):
        run(color)


def test_missing_dimensions_are_named(color: Path) -> None:
    for name in ("t5_io.safetensors", "t5_weights.safetensors"):
        shutil.copy(HERE / "published" / name, color)
    meta = json.loads((color / "meta.json").read_text())
    del meta["configs"]["t5"]["dim_ffn"]
    (color / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ConfigError, match="no 'dim_ffn'"):
        run(color)
    meta["configs"]["t5"]["dim_ffn"] = 63
    (color / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(CheckpointError, match=r"text_encoder weights.*meta\.json"):
        run(color)


def test_a_dump_that_cannot_be_written(color: Path) -> None:
    (color / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        run(color, color / "file")
