"""SyncNet without its weights: shapes, sound features, shifts and what the command says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from livetalk_core.cli import app
from livetalk_core.errors import AudioError, CheckpointError
from livetalk_core.lip_sync import syncnet
from livetalk_core.lip_sync.syncnet import SIDE, SyncNet, best_shift, load_syncnet, mfcc, sync_score
from livetalk_core.media import VideoWriter
from livetalk_core.training.evaluate.video_sync import _square

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def weights(network: SyncNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the authors' file: without the counters that newer batch norms have."""
    path = tmp_path_factory.mktemp("syncnet") / "syncnet.safetensors"
    save_file({k: v for k, v in network.state_dict().items() if "num_batches" not in k}, path)
    return path


def test_towers_end_in_one_place_each(network: SyncNet) -> None:
    assert network.netcnnaud(torch.zeros(1, 1, 13, 20)).shape == (1, 512, 1, 1)
    assert network.netcnnlip(torch.zeros(1, 3, 5, SIDE, SIDE)).shape == (1, 512, 1, 1, 1)
    assert network.sound(torch.zeros(2, 1, 13, 20)).shape == (2, 1024)


def test_sound_features_are_the_releases() -> None:
    """Row 3 of two tones as python_speech_features 0.6 computes it, which the release uses."""
    t = np.arange(1600) / 16000
    tones = np.round(8000 * np.sin(2 * np.pi * 440 * t) + 2000 * np.sin(2 * np.pi * 2500 * t))
    rows = mfcc(tones)
    assert rows.shape == (9, 13)
    expected = [20.1056, 13.4401, -13.037, 23.6642, -15.6882, -61.8945, -9.8208, 4.9387, -29.2456, 13.2876, 45.1342]
    assert rows[3, :11] == pytest.approx(expected, abs=1e-3)
    assert np.isfinite(mfcc(np.zeros(100))).all()


@pytest.mark.parametrize("late", [0, 4, -7])
def test_shift_between_lips_and_sound_is_found(late: int) -> None:
    generator = torch.Generator().manual_seed(1)
    heard = torch.randn(120, 1024, generator=generator)
    noise = 0.3 * torch.randn(120, 1024, generator=generator)
    together = best_shift(torch.roll(heard, late, 0) + noise, heard)
    assert together.lag == late
    strangers = best_shift(torch.randn(120, 1024, generator=generator), heard)
    assert together.confidence > 5 * strangers.confidence
    assert together.distance < strangers.distance


def test_score_does_not_depend_on_how_frames_are_batched(network: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syncnet, "_BATCH", 3)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (9, SIDE, SIDE, 3), dtype=np.uint8)
    sound = rng.normal(0, 0.1, 9 * 640).astype(np.float32)
    found = sync_score(network, iter(frames), sound)
    video = torch.from_numpy(frames[..., ::-1].copy()).float().permute(3, 0, 1, 2)
    lips = torch.cat([network.lips(video[None, :, k : k + 5]) for k in range(4)])
    rows = torch.from_numpy(mfcc(sound * 32768).astype(np.float32))
    heard = torch.cat([network.sound(rows[None, None, 4 * k : 4 * k + 20].transpose(2, 3)) for k in range(4)])
    expected = best_shift(lips, heard)
    assert (found.lag, found.distance) == (expected.lag, pytest.approx(expected.distance, rel=1e-4))
    with pytest.raises(AudioError, match="five frames"):
        sync_score(network, iter(frames[:4]), sound)


def test_other_files_are_refused(weights: Path, tmp_path: Path) -> None:
    load_syncnet(weights)
    other = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, other)
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    for path, words in ((other, "holds no SyncNet"), (tmp_path / "broken.safetensors", "cannot be read"),
                        (tmp_path / "none.safetensors", "cannot be read")):  # fmt: skip
        with pytest.raises(CheckpointError, match=words):
            load_syncnet(path)


def test_square_lies_around_the_face_and_within_the_picture() -> None:
    assert _square(640, 480, None) == (80, 0, 560, 480)
    left, top, right, bottom = _square(640, 480, (0.0, 0.5, 0.25, 0.75))
    assert (left, right - left, bottom - top) == (0, 160, 160)
    assert top + bottom == 2 * 0.625 * 480


@pytest.fixture
def video(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "talk.mkv"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 64, 64, 25) as writer:
        frames = rng.integers(0, 256, (7, 64, 64, 3), dtype=np.uint8)
        writer.write(frames, rng.normal(0, 0.1, 7 * 640).astype(np.float32))
    yield path


def test_command_shows_the_score_where_weights_are_given(video: Path, weights: Path) -> None:
    shown = CliRunner().invoke(app, ["evaluate", str(video), "--syncnet", str(weights)])
    assert shown.exit_code == 0, shown.output
    assert "SyncNet" in shown.output
    plain = CliRunner().invoke(app, ["evaluate", str(video), "--syncnet", str(weights), "--json"])
    score = json.loads(plain.output)["videos"][0]["syncnet"]
    assert score["distance"] > 0 and abs(score["lag"]) <= 15
    without = json.loads(CliRunner().invoke(app, ["evaluate", str(video), "--json"]).output)
    assert without["videos"][0]["syncnet"] is None
    missing = CliRunner().invoke(app, ["evaluate", str(video), "--syncnet", "none.safetensors"])
    assert missing.exit_code == 2 and "livetalk convert" in " ".join(missing.output.split())
