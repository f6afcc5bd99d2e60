"""Prepared data: encoded as the engine would encode them, resumable, and with reasons for what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from training_data import GEOMETRY, RandomSource, write_prepared

from livetalk_core.audio import AudioRing
from livetalk_core.config import StreamConfig
from livetalk_core.engine.constants import audio_encoder, reference_latents
from livetalk_core.errors import ConfigError, TrainingError
from livetalk_core.loading import open_parts
from livetalk_core.media import VideoWriter
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.training.data.background import STILL, background_similarity
from livetalk_core.training.data.batches import PreparedBatches
from livetalk_core.training.data.buckets import bucket_sizes, nearest_bucket
from livetalk_core.training.data.drawn import DrawnSource
from livetalk_core.training.data.prepare import prepare
from livetalk_core.training.data.prepared import PreparedSet, face_mask, window_rows
from livetalk_core.training.data.raw import RawClip, Skipped
from livetalk_core.training.data.videos import VideoOptions, VideoSource, iter_frames
from livetalk_core.training.prepare import PrepareRequest, run_prepare
from livetalk_core.training.speech.bank import make_bank
from livetalk_core.training.trainer.draws import Draws

pytestmark = pytest.mark.unit
OPTIONS = VideoOptions(area=64 * 64, chunks=2, references=2)


def talk(seconds: float, seed: int = 0, moving: bool = False, width: int = 64, height: int = 64) -> np.ndarray:
    """Frames whose middle moves; the border only if asked for."""
    rng = np.random.default_rng(seed)
    back = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([back] * round(seconds * 25))
    for number, frame in enumerate(frames):
        if moving:
            frame[:] = np.roll(back, 3 * number, axis=1)
        frame[height // 3 : -height // 4, width // 3 : -width // 3] = number * 3 % 256
    return frames


def write_video(path: Path, frames: np.ndarray, level: float = 0.1) -> Path:
    with VideoWriter(path, frames.shape[2], frames.shape[1], 25) as writer:
        writer.write(frames, np.random.default_rng(1).normal(0, level, len(frames) * 640).astype(np.float32))
    return path


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


def test_videos_become_clips_with_references_from_outside(tmp_path: Path) -> None:
    frames = talk(2.0)
    write_video(tmp_path / "good.mp4", frames)
    (tmp_path / "good.txt").write_text("a person\n")
    (tmp_path / "good.face.json").write_text("[0.3, 0.2, 0.7, 0.8]")
    source = VideoSource(tmp_path, GEOMETRY, OPTIONS)
    clips = list(source.clips("good.mp4"))
    assert [clip.name for clip in clips] == [f"good.mp4@{start}" for start in (0, 13, 26)]
    for clip in clips:
        assert isinstance(clip, RawClip)
        assert clip.frames.shape == (13, 64, 64, 3)
        assert clip.samples.shape == (16000 + 4 * 640,)
        assert clip.prompt == "a person"
        assert clip.face == (0.3, 0.2, 0.7, 0.8)
        # The middle's grey value is the frame's number: references lie outside of the clip.
        own = {round(frame[30, 32, 0] / 3) for frame in clip.frames}
        others = {round(frame[30, 32, 0] / 3) for frame in clip.references}
        assert not own & others
    first, second = clips[0], clips[1]
    assert isinstance(first, RawClip) and isinstance(second, RawClip)
    assert (first.samples[: (25 - 9) * 640] == 0).all()
    assert np.allclose(first.samples[-8 * 640 :], second.samples[-21 * 640 : -13 * 640], atol=1e-6)


def test_frames_follow_the_clock_not_the_container(tmp_path: Path) -> None:
    path = write_video(tmp_path / "talk.mp4", talk(1.0))
    faster, same = (list(iter_frames(path, fps, [(64, 64)])) for fps in (50, 25))
    assert len(same) == 25
    assert len(faster) == 49
    assert np.array_equal(faster[20], same[10])


def test_unusable_videos_are_counted_by_reason(tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_video(folder / "good.mp4", talk(1.2))
    write_video(folder / "wide.mp4", talk(1.2, width=128, height=64))
    write_video(folder / "short.mp4", talk(0.4))
    write_video(folder / "silent.mp4", talk(1.2), level=0.0)
    write_video(folder / "restless.mp4", talk(1.2, moving=True))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "damaged.mp4").write_bytes((folder / "good.mp4").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a video")
    write_mute(folder / "mute.mp4")
    index = run_prepare(
        PrepareRequest(tmp_path / "data", str(tiny_model_folder), folder, chunks=2, device="cpu", size=(64, 64))
    )
    assert {clip.name.partition("@")[0] for clip in index.clips} == {"good.mp4", "wide.mp4"}
    assert {clip.bucket for clip in index.clips if clip.name.startswith("wide")} != {"64x64"}
    moving = index.skipped.pop("background moves")
    assert moving >= 1
    assert index.skipped == {"unreadable": 2, "shorter than one clip": 1, "silent": 1, "no audio track": 1}


def write_mute(path: Path) -> None:
    """A video without an audio track."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 64
        for frame in talk(1.2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def test_drawn_people_are_a_source_like_videos(
    tiny_model: ModelBundle, tiny_model_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("skia", reason="drawing needs skia-python")
    rng = np.random.default_rng(0)
    spoken = ("voice", rng.integers(-3000, 3000, 60 * 640).astype(np.int16), rng.random((60, 4)).astype(np.float32))
    source = DrawnSource(make_bank([spoken]), people=2, chunks=2, size=64, geometry=GEOMETRY, first_seed=7)
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


def test_bad_face_file_skips_its_video(tmp_path: Path) -> None:
    write_video(tmp_path / "talk.mp4", talk(1.2))
    (tmp_path / "talk.face.json").write_text("[0.9, 0.1, 0.2, 0.4]")
    (skipped,) = VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("talk.mp4")
    assert isinstance(skipped, Skipped) and skipped.reason == "bad face box"


def test_unreadable_prompt_skips_its_video(tmp_path: Path) -> None:
    write_video(tmp_path / "talk.mp4", talk(1.2))
    (tmp_path / "talk.txt").write_bytes(b"\xff\xfe\x00")
    (skipped,) = VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("talk.mp4")
    assert isinstance(skipped, Skipped) and skipped.reason == "bad prompt"


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
