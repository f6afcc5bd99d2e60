"""Prepared data: encoded as the engine would encode them, resumable, and with reasons for what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from films import talk
from training_data import GEOMETRY, RandomSource, write_prepared

from livetalk_core.audio import AudioRing
from livetalk_core.config import StreamConfig
from livetalk_core.engine.constants import audio_encoder, reference_latents
from livetalk_core.errors import ConfigError, TrainingError
from livetalk_core.loading import open_parts
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.training.data import shards
from livetalk_core.training.data.background import STILL, background_similarity
from livetalk_core.training.data.batches import PreparedBatches
from livetalk_core.training.data.buckets import bucket_sizes, nearest_bucket
from livetalk_core.training.data.drawn import DrawnSource
from livetalk_core.training.data.prepare import prepare
from livetalk_core.training.data.prepared import PreparedSet, face_mask, window_rows
from livetalk_core.training.data.raw import RawClip
from livetalk_core.training.data.videos import VideoSource
from livetalk_core.training.prepare import PrepareRequest, run_prepare
from livetalk_core.training.speech.bank import make_bank
from livetalk_core.training.trainer.draws import Draws

pytestmark = pytest.mark.unit


def test_interrupted_preparation_goes_on_where_it_stopped(
    tiny_model: ModelBundle, tiny_model_folder: Path, tmp_path: Path
) -> None:
    encoders = open_parts(tiny_model_folder).encoders
    with pytest.raises(KeyboardInterrupt):
        prepare(RandomSource(10, chunks=1, failing="clip-9"), tiny_model, encoders, tmp_path / "data")
    with pytest.raises(TrainingError, match="holds no prepared data"):
        PreparedSet(tmp_path / "data")
    again = RandomSource(10, chunks=1)
    index = prepare(again, tiny_model, encoders, tmp_path / "data")
    assert again.asked == ["clip-8", "clip-9"]
    assert len(index.clips) == 9
    assert index.skipped == {"silent": 1}
    with pytest.raises(TrainingError, match="other videos"):
        prepare(RandomSource(6, chunks=1), tiny_model, encoders, tmp_path / "data")
    with pytest.raises(TrainingError, match="another model"):
        prepare(RandomSource(10, chunks=1), tiny_model, "others", tmp_path / "data")
    with pytest.raises(TrainingError, match=r"prepared with chunks=1.*, not chunks=2"):
        prepare(RandomSource(10, chunks=2), tiny_model, encoders, tmp_path / "data")


def test_what_was_mended_is_encoded_again_and_nothing_else(
    tiny_model: ModelBundle, tiny_model_folder: Path, tmp_path: Path
) -> None:
    encoders, data = open_parts(tiny_model_folder).encoders, tmp_path / "data"
    first = prepare(RandomSource(10, chunks=1), tiny_model, encoders, data)
    again = RandomSource(10, chunks=1)
    again.stamps["clip-9"] = "mended"
    assert prepare(again, tiny_model, encoders, data) == first
    assert again.asked == ["clip-8", "clip-9"]
    failing = RandomSource(10, chunks=1, failing="clip-1")
    failing.stamps = {"clip-0": "mended", "clip-9": "mended"}
    with pytest.raises(KeyboardInterrupt):
        prepare(failing, tiny_model, encoders, data)
    with pytest.raises(TrainingError, match="to its end first"):
        PreparedSet(data)


def test_clips_are_encoded_as_the_engine_encodes(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    """Latents chunk by chunk, the reference as a stream's, audio rows as the sliding window's."""
    (clip,) = RandomSource(1).clips("clip-0")
    assert isinstance(clip, RawClip)
    stored = prepared.read(0, 1, 2, 1)

    def video(frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None].float() / 127.5 - 1

    second = tiny_model.vae.encode(video(clip.frames[4:13]))[0]
    assert torch.allclose(stored.latents[0], second, rtol=0.02, atol=0.02)
    y = reference_latents(tiny_model, video(clip.references[1:]), GEOMETRY)
    assert torch.allclose(stored.reference, y[0, 4:], rtol=0.02, atol=0.02)
    config = StreamConfig(width=64, height=64, geometry=GEOMETRY)
    ring = AudioRing(clip.samples[4 * 640 :][:16000])
    heard = audio_encoder(tiny_model, config).stream_windows(ring)[0]
    assert torch.allclose(stored.features[0][window_rows(9)], heard, rtol=0.02, atol=0.02)
    assert np.array_equal(stored.picture.numpy(), clip.references[1])
    assert np.allclose(prepared.samples(0).numpy(), np.clip(clip.samples, -1, 1), atol=1e-4)


def test_batches_do_not_depend_on_the_number_of_ranks(prepared_folder: Path) -> None:
    batches = PreparedBatches(PreparedSet(prepared_folder), torch.device("cpu"))
    together = batches.draw(Draws(3, 5, range(4)), 2)
    apart = [batches.draw(Draws(3, 5, range(first, first + 2)), 2) for first in (0, 2)]
    for name in ("latents", "windows", "y", "context", "pictures", "face"):
        assert torch.equal(getattr(together, name), torch.cat([getattr(part, name) for part in apart]))
    assert together.latents.shape == (4, 2, 16, 3, 8, 8)
    assert together.windows.shape[:4] == (4, 2, 9, 5)
    with pytest.raises(TrainingError, match="has 4 chunks"):
        batches.draw(Draws(0, 0, range(1)), 4)


def test_long_videos_go_to_disk_in_parts(
    tiny_model: ModelBundle, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoders = open_parts(tiny_model_folder).encoders
    whole = prepare(RandomSource(4, chunks=1), tiny_model, encoders, tmp_path / "whole")
    monkeypatch.setattr(shards, "SHARD_BYTES", 1)
    parts = prepare(RandomSource(4, chunks=1), tiny_model, encoders, tmp_path / "parts")
    assert [clip.shard for clip in parts.clips[:2]] == ["64x64_00000.safetensors", "64x64_00000_1.safetensors"]
    assert {clip.shard for clip in whole.clips} == {"64x64_00000.safetensors"}
    one, other = PreparedSet(tmp_path / "whole"), PreparedSet(tmp_path / "parts")
    for number in range(4):
        assert torch.equal(one.read(number, 0, 1, 0).latents, other.read(number, 0, 1, 0).latents)


def test_small_buckets_stand_as_well_as_they_lie() -> None:
    for area in (64 * 64, 128 * 128):
        sizes = bucket_sizes(area)
        assert {(height, width) for width, height in sizes} == set(sizes)


def test_buckets_keep_area_and_shape() -> None:
    sizes = bucket_sizes(448 * 768)
    assert (448, 768) in sizes
    assert all(w % 16 == h % 16 == 0 and 0.85 < w * h / (448 * 768) <= 1.03 for w, h in sizes)
    assert nearest_bucket(1080, 1920, sizes)[0] < nearest_bucket(1080, 1920, sizes)[1]
    for width, height in ((1080, 1920), (1920, 1080), (1000, 1000), (640, 480)):
        chosen = nearest_bucket(width, height, sizes)
        assert abs(np.log(chosen[0] / chosen[1]) - np.log(width / height)) < 0.12


def test_background_filter_tells_a_moving_camera_from_a_talking_person() -> None:
    assert background_similarity(talk(1.0)) > 0.999
    assert background_similarity(talk(1.0, moving=True)) < STILL
    assert background_similarity(talk(0.04)) == 1.0


def test_face_mask_covers_the_box() -> None:
    mask = face_mask((0.25, 0.5, 0.75, 1.0), 8, 8)
    assert mask.sum() == 4 * 4
    assert mask[4:, 2:6].all()
    assert face_mask(None, 8, 8).sum() == 0


def test_drawn_people_are_a_source_like_videos(
    tiny_model: ModelBundle, tiny_model_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("skia", reason="drawing needs skia-python", exc_type=ImportError)
    rng = np.random.default_rng(0)
    spoken = ("voice", rng.integers(-3000, 3000, 60 * 640).astype(np.int16), rng.random((60, 4)).astype(np.float32))
    source = DrawnSource(make_bank([spoken]), people=2, chunks=2, size=64, geometry=GEOMETRY, first_seed=7)
    longer = DrawnSource(make_bank([spoken, spoken]), people=2, chunks=2, size=64, geometry=GEOMETRY, first_seed=7)
    assert source.stamp("drawn-7") != longer.stamp("drawn-7")
    clips = [next(iter(source.clips(group))) for group in source.groups]
    assert [clip.name for clip in clips] == ["drawn-7", "drawn-8"]
    assert np.array_equal(clips[0].frames, next(source.clips("drawn-7")).frames)
    assert not np.array_equal(clips[0].references[0], clips[1].references[0])
    encoders = open_parts(tiny_model_folder).encoders
    index = prepare(source, tiny_model, encoders, tmp_path / "data")
    assert [(clip.bucket, clip.chunks) for clip in index.clips] == [("64x64", 2)] * 2
    assert 0 < PreparedSet(tmp_path / "data").read(0, 0, 2, 0).face.mean() < 1
    with pytest.raises(ConfigError, match="cannot be drawn"):
        DrawnSource(make_bank([spoken]), people=0, chunks=2)


def test_requests_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for request in (
        PrepareRequest(tmp_path / "data"),
        PrepareRequest(tmp_path / "data", videos=tmp_path, drawn=3),
        PrepareRequest(tmp_path / "data", drawn=3, chunks=0),
    ):
        with pytest.raises(ConfigError, match="Say what to prepare"):
            run_prepare(request)
    with pytest.raises(ConfigError, match="width is 0"):
        run_prepare(PrepareRequest(tmp_path / "data", videos=tmp_path, size=(0, 0)))
    with pytest.raises(TrainingError, match="holds no videos"):
        VideoSource(tmp_path, GEOMETRY)
    with pytest.raises(TrainingError, match="is not a folder"):
        VideoSource(tmp_path / "absent", GEOMETRY)


def test_damaged_prepared_data_are_named(prepared_folder: Path, tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = write_prepared(tmp_path / "data", tiny_model_folder, clips=1, chunks=1)
    (folder / "64x64_00000.safetensors").write_bytes(b"broken")
    with pytest.raises(TrainingError, match="cannot be read"):
        PreparedSet(folder).read(0, 0, 1, 0)
    index = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(index | {"clips": []}))
    with pytest.raises(TrainingError, match="holds no clips"):
        PreparedSet(folder)
    (folder / "dataset.json").write_text("{")
    with pytest.raises(TrainingError, match="is damaged"):
        PreparedSet(folder)
