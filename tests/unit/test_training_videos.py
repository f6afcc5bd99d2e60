"""Real videos as a source of clips: on one clock, upright, and with reasons for what is left out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from films import mux, on_its_side, talk, write_talk
from training_data import GEOMETRY

from livetalk_core.media import cropped_box, read_video, read_video_sound
from livetalk_core.training.data.raw import RawClip, Skipped
from livetalk_core.training.data.video_frames import iter_frames
from livetalk_core.training.data.videos import VideoOptions, VideoSource
from livetalk_core.training.prepare import PrepareRequest, run_prepare

pytestmark = pytest.mark.unit
OPTIONS = VideoOptions(area=64 * 64, chunks=2, references=2)


def test_videos_become_clips_with_references_from_outside(tmp_path: Path) -> None:
    frames = talk(2.0)
    write_talk(tmp_path / "good.mp4", frames)
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
    path = write_talk(tmp_path / "talk.mp4", talk(1.0))
    faster, same = (list(iter_frames(path, fps, [(64, 64)])) for fps in (50, 25))
    assert len(same) == 25
    assert len(faster) == 50
    assert np.array_equal(faster[20], same[10])


def test_unusable_videos_are_counted_by_reason(tmp_path: Path, tiny_model_folder: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    write_talk(folder / "good.mp4", talk(1.2))
    write_talk(folder / "wide.mp4", talk(1.2, width=128, height=64))
    write_talk(folder / "short.mp4", talk(0.4))
    write_talk(folder / "silent.mp4", talk(1.2), level=0.0)
    write_talk(folder / "restless.mp4", talk(1.2, moving=True))
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "damaged.mp4").write_bytes((folder / "good.mp4").read_bytes()[:300])
    (folder / "notes.txt").write_text("not a video")
    mux(folder / "mute.mp4", talk(1.2))
    index = run_prepare(
        PrepareRequest(tmp_path / "data", str(tiny_model_folder), folder, chunks=2, device="cpu", size=(64, 64))
    )
    assert {clip.name.partition("@")[0] for clip in index.clips} == {"good.mp4", "wide.mp4"}
    assert {clip.bucket for clip in index.clips if clip.name.startswith("wide")} != {"64x64"}
    moving = index.skipped.pop("background moves")
    assert moving >= 1
    once = ("unreadable", "no pictures", "shorter than one clip", "silent", "no audio track")
    assert index.skipped == dict.fromkeys(once, 1)


def test_bad_face_file_skips_its_video(tmp_path: Path) -> None:
    write_talk(tmp_path / "talk.mp4", talk(1.2))
    (tmp_path / "talk.face.json").write_text("[0.9, 0.1, 0.2, 0.4]")
    (skipped,) = VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("talk.mp4")
    assert isinstance(skipped, Skipped) and skipped.reason == "bad face box"


def test_unreadable_prompt_skips_its_video(tmp_path: Path) -> None:
    write_talk(tmp_path / "talk.mp4", talk(1.2))
    (tmp_path / "talk.txt").write_bytes(b"\xff\xfe\x00")
    (skipped,) = VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("talk.mp4")
    assert isinstance(skipped, Skipped) and skipped.reason == "bad prompt"


def test_rates_are_changed_by_what_is_on_screen(tmp_path: Path) -> None:
    shades = np.arange(60, dtype=np.uint8)[:, None, None, None] * 4
    frames = np.broadcast_to(shades, (60, 64, 64, 3))
    for rate in (30, 50):
        mux(tmp_path / "talk.mkv", frames, fps=rate)
        shown = [round(float(frame.mean()) / 4) for frame in iter_frames(tmp_path / "talk.mkv", 25, [(64, 64)])]
        assert shown[:-1] == [number * rate // 25 for number in range(len(shown) - 1)]
        assert len(shown) == 60 * 25 // rate


def test_pictures_that_lie_on_their_side_stand_up(tmp_path: Path) -> None:
    plain = write_talk(tmp_path / "plain.mp4", talk(1.2, width=96, height=64))
    turned = on_its_side(plain, tmp_path / "turned.mp4")
    for lying, standing in zip(read_video(plain), read_video(turned), strict=True):
        assert np.array_equal(np.rot90(lying, -1), standing)
    clip = next(iter(VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("turned.mp4")))
    assert isinstance(clip, RawClip) and clip.size == (48, 80)


def test_face_box_goes_through_the_crop(tmp_path: Path) -> None:
    frames = talk(1.2, width=64, height=160) // 2
    frames[:, 64:96, 16:48] = 255
    write_talk(tmp_path / "talk.mp4", frames)
    (tmp_path / "talk.face.json").write_text("[0.25, 0.4, 0.75, 0.6]")
    clip = next(iter(VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("talk.mp4")))
    assert isinstance(clip, RawClip) and clip.face is not None
    rows, columns = np.nonzero((clip.frames[0] > 230).all(axis=-1))
    width, height = clip.size
    seen = columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
    assert clip.face == pytest.approx(seen, abs=1.5 / min(clip.size))
    assert cropped_box((0.2, 0.0, 0.4, 0.05), (100, 400), 100, 100) is None


@pytest.mark.parametrize("seconds", [0.4, -0.4])
def test_sound_is_put_on_the_clock_of_the_pictures(tmp_path: Path, seconds: float) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    mux(tmp_path / "talk.mkv", talk(2.0), sound, sound_at=seconds)
    heard = read_video_sound(tmp_path / "talk.mkv", 16_000)
    assert heard is not None
    late = round(seconds * 16_000)
    expected = np.pad(sound, (late, 0)) if late > 0 else sound[-late:]
    assert len(heard) == len(expected) and np.abs(heard - expected).max() < 1e-4
    assert read_video_sound(mux(tmp_path / "mute.mkv", talk(0.2)), 16_000) is None


def test_clips_end_where_the_sound_does(tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    mux(tmp_path / "talk.mkv", talk(3.0), sound)
    *clips, last = VideoSource(tmp_path, GEOMETRY, OPTIONS).clips("talk.mkv")
    assert [clip.name for clip in clips] == ["talk.mkv@0", "talk.mkv@13"]
    assert last == Skipped("talk.mkv@26", "sound ends early")


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_that_are_no_unicode_are_written_out(tmp_path: Path, tiny_model_folder: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    os.rename(write_talk(tmp_path / "talk.mp4", talk(1.2)), os.fsencode(videos) + b"/gr\xfc\xdfe.mp4")
    index = run_prepare(
        PrepareRequest(tmp_path / "data", str(tiny_model_folder), videos, chunks=2, device="cpu", size=(64, 64))
    )
    assert index.clips and {clip.name.partition("@")[0] for clip in index.clips} == {"gr\\udcfc\\udcdfe.mp4"}
