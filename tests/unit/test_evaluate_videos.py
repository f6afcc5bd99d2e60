"""Measures of videos, on videos whose defect is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from films import mux
from PIL import Image
from typer.testing import CliRunner

from livetalk_core.cli import app
from livetalk_core.errors import LiveTalkError
from livetalk_core.media import VideoWriter
from livetalk_core.training.evaluate.video import VideoMeasures, VideoMeter, flicker, measure_video

pytestmark = pytest.mark.unit
SLICE = 28


def person(chunks: int = 6, seed: int = 0) -> np.ndarray:
    """A still, detailed background with a slowly moving, smooth middle; uint8 [F,64,64,3]."""
    rng = np.random.default_rng(seed)
    back = rng.integers(40, 216, (16, 16, 3)).repeat(4, 0).repeat(4, 1).astype(np.float32)
    frames = np.stack([back] * (chunks * SLICE))
    phase = np.arange(len(frames)) * 2 * np.pi / SLICE
    frames[:, 24:56, 20:44] = 128 + 40 * np.sin(phase)[:, None, None, None]
    return frames.astype(np.uint8)


def measure(frames: np.ndarray, samples: np.ndarray | None = None) -> VideoMeasures:
    meter = VideoMeter(SLICE, person()[0])
    for start in range(0, len(frames), SLICE):
        meter.add(frames[start : start + SLICE])
    return meter.finish("test", samples)


def test_sound_video_has_no_defect() -> None:
    found = measure(person())
    assert found.color.max() < 1
    assert found.identity.min() > 0.98
    assert abs(found.border_jump - 1) < 0.5
    assert found.flicker.max() < 0.5
    assert np.allclose(found.sharpness, found.sharpness[0], rtol=0.05)
    assert found.lips is None


def test_reference_of_another_size_and_shape_is_taken_as_the_model_takes_it() -> None:
    frames = person()
    large = np.asarray(Image.fromarray(frames[0]).resize((256, 256), Image.Resampling.BICUBIC))
    wide = np.pad(large, ((0, 0), (64, 64), (0, 0)), mode="edge")
    same, scaled, cropped = (VideoMeter(SLICE, picture) for picture in (frames[0], large, wide))
    for meter in (same, scaled, cropped):
        meter.add(frames[:SLICE])
    expected = same.finish("", None)
    for meter in (scaled, cropped):
        found = meter.finish("", None)
        assert found.sharpness[0] == pytest.approx(expected.sharpness[0], rel=0.6)
        assert found.color[0] < 5 and found.identity[0] > 0.9


def test_first_chunk_may_be_longer(tmp_path: Path) -> None:
    frames = person(4).astype(np.int16)
    frames[33:61] += 12
    write(tmp_path / "whole.mkv", frames.clip(0, 255).astype(np.uint8))
    found = measure_video(tmp_path / "whole.mkv", SLICE, first_frames=33)
    assert found.jump[1] > 5 and found.jump[2] > 5
    assert measure_video(tmp_path / "whole.mkv", SLICE).border_jump < 2


@pytest.mark.parametrize("rate", [10, 50])
def test_other_rates_have_the_same_borders(tmp_path: Path, rate: int) -> None:
    mux(tmp_path / "talk.mkv", person(3)[: 3 * SLICE // 2 * 2], fps=rate)
    found = measure_video(tmp_path / "talk.mkv", SLICE)
    assert found.frames == 3 * SLICE * 25 // rate
    assert found.border_jump < 3


def test_growing_colour_cast_is_seen_to_grow() -> None:
    frames = person().astype(np.float32)
    frames[..., 0] += np.linspace(0, 40, len(frames))[:, None, None]
    found = measure(frames.clip(0, 255).astype(np.uint8))
    assert (np.diff(found.color) > 0).all()
    first, last = found.ends()["color"]
    assert last > 3 > first
    assert found.identity.min() > 0.95


def test_border_jumps_are_told_from_motion_inside() -> None:
    frames = person().astype(np.int16)
    for chunk in range(6):
        frames[chunk * SLICE : (chunk + 1) * SLICE] += 12 * (chunk % 2)
    found = measure(frames.clip(0, 255).astype(np.uint8))
    assert found.border_jump > 5 * measure(person()).border_jump
    assert (found.jump[1:] > 5).all()


def test_blur_lowers_sharpness() -> None:
    frames = person().astype(np.float32)
    late = frames[3 * SLICE :]
    mixed = (late + np.roll(late, 1, 1) + np.roll(late, 1, 2) + np.roll(late, -1, 1) + np.roll(late, -1, 2)) / 5
    frames[3 * SLICE :] = mixed
    found = measure(frames.astype(np.uint8))
    first, last = found.ends()["sharpness"]
    assert last < 0.8 * first


def test_flicker_is_measured_in_steps() -> None:
    frames = person(1).astype(np.int16)
    frames[1::2] += 3
    # +3, 0, +3: the second difference is 6 everywhere.
    assert flicker(frames.clip(0, 255).astype(np.uint8)) == pytest.approx(6.0, abs=0.5)
    assert flicker(person(1)[:2]) == 0.0


def test_another_background_is_another_likeness() -> None:
    frames = person()
    frames[3 * SLICE :] = person(seed=1)[3 * SLICE :]
    first, last = measure(frames).ends()["identity"]
    assert first > 0.98
    assert last < 0.6


@pytest.mark.parametrize("shift", [0, 5])
def test_shifted_sound_is_found_as_lag(shift: int) -> None:
    """A drawn mouth that opens with the sound's loudness, and the same sound moved by whole frames."""
    pytest.importorskip("skia", reason="drawing needs skia-python", exc_type=ImportError)
    from livetalk_core.training.avatars.avatar import Identity, render_clip

    rng = np.random.default_rng(3)
    opening = np.clip(np.convolve(rng.normal(0, 1, 104), np.ones(5) / 2.5, "valid"), 0, 1)
    mouth = np.zeros((len(opening), 4), np.float32)
    mouth[:, 0] = opening
    frames = render_clip(Identity.from_seed(1), mouth, np.zeros((len(opening), 7), np.float32), 128)
    levels = 10 ** ((opening - 1) * 2)
    sound = (np.repeat(levels, 640) * rng.normal(0, 0.2, len(opening) * 640)).astype(np.float32)
    moved = np.roll(sound, -shift * 640)
    meter = VideoMeter(SLICE)
    for start in range(0, len(frames), SLICE):
        meter.add(frames[start : start + SLICE])
    found = meter.finish("test", moved)
    assert found.lag == shift
    assert found.lips is not None and found.lips > 0.8


def write(path: Path, frames: np.ndarray, fps: int = 25) -> Path:
    with VideoWriter(path, 64, 64, fps) as writer:
        writer.write(frames, np.random.default_rng(0).normal(0, 0.1, len(frames) * 640).astype(np.float32))
    return path


def test_videos_of_other_rates_are_measured_at_25(tmp_path: Path) -> None:
    assert measure_video(write(tmp_path / "fast.mkv", person(2), 50), SLICE).frames == 28
    assert measure_video(write(tmp_path / "same.mkv", person(2)), SLICE).frames == 56


def test_command_shows_a_table_and_writes_a_plot(tmp_path: Path) -> None:
    video = write(tmp_path / "talk.mkv", person(3))
    result = CliRunner().invoke(app, ["evaluate", str(video), "--out", str(tmp_path / "found")])
    assert result.exit_code == 0, result.output
    assert "talk.mkv" in result.output and "borders" in result.output
    found = json.loads((tmp_path / "found" / "videos.json").read_text())["videos"][0]
    assert len(found["curves"]["color"]) == 3
    assert (tmp_path / "found" / "videos.png").stat().st_size > 10_000


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"nonsense")
    for name in ("bad.mp4", "absent.mp4"):
        with pytest.raises(LiveTalkError, match=name):
            measure_video(tmp_path / name, SLICE)
    result = CliRunner().invoke(app, ["evaluate", "embedded", "talk.mp4"])
    assert result.exit_code == 2
