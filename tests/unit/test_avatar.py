"""The procedural avatar: determinism, readable mouths, boxes and motion."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("skia", reason="drawing needs skia-python", exc_type=ImportError)

from livetalk_core.errors import TrainingError
from livetalk_core.training.avatars.avatar import (
    HELD_OUT_SEED,
    PORTRAIT_SEED,
    Identity,
    draw,
    eye_boxes,
    jaw_box,
    mouth_box,
    reference_frame,
    render_clip,
)
from livetalk_core.training.avatars.identity import HAIR_STYLES
from livetalk_core.training.avatars.motion import BLINK, POSE_LIMIT, motion_track

pytestmark = pytest.mark.unit

CLOSED = (0.0, 0.0, 0.0, 0.0)
SEEDS = range(12)


def changed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Mask [H,W] of the pixels that differ by more than the rounding of smooth edges (up to 7 of 255)."""
    return (np.abs(first.astype(int) - second) > 8).any(-1)


def outside(mask: np.ndarray, *boxes: tuple[int, int, int, int]) -> int:
    """Count the set pixels that lie in none of the boxes."""
    mask = mask.copy()
    for left, top, right, bottom in boxes:
        mask[top:bottom, left:right] = False
    return int(mask.sum())


def test_same_seed_gives_same_bytes() -> None:
    first = draw(Identity.from_seed(5), (0.4, 0.2, 0.5, 0.1), (1.0, -0.5, 0.7), 0.3, 0.2, (0.1, 0.0))
    again = draw(Identity.from_seed(5), (0.4, 0.2, 0.5, 0.1), (1.0, -0.5, 0.7), 0.3, 0.2, (0.1, 0.0))
    assert first.shape == (128, 128, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert changed(first, draw(Identity.from_seed(6), CLOSED)).mean() > 0.3


def test_identities_cover_every_hair_style_and_few_wear_glasses() -> None:
    people = [Identity.from_seed(seed) for seed in range(600)]
    assert {who.hair_style for who in people} == set(HAIR_STYLES)
    assert 0.08 < np.mean([who.glasses for who in people]) < 0.22
    assert min(min(who.skin) for who in people) > 45


@pytest.mark.parametrize("seed", SEEDS)
def test_opening_grows_the_inside_of_the_mouth(seed: int) -> None:
    who = Identity.from_seed(seed)
    closed = draw(who, CLOSED)
    areas = []
    for opening in np.linspace(0.1, 1.0, 7):
        spoken = draw(who, (opening, 0.0, 0.4, 0.3))
        areas.append(int((mouth_pixels(spoken) & changed(spoken, closed)).sum()))
    assert (np.diff(areas) > 0).all(), areas
    assert areas[-1] > 300


def mouth_pixels(frame: np.ndarray) -> np.ndarray:
    """Mask [H,W] of interior, teeth and tongue colours inside the mouth box."""
    mask = np.zeros(frame.shape[:2], bool)
    for colour in ((92, 14, 34), (253, 251, 247), (236, 104, 116)):
        mask |= np.abs(frame.astype(int) - colour).sum(-1) < 40
    left, top, right, bottom = mouth_box(128)
    mask[:top] = mask[bottom:] = False
    mask[:, :left] = mask[:, right:] = False
    return mask


def test_boxes_hold_what_moves_in_every_pose() -> None:
    corners = [
        (x * POSE_LIMIT[0], y * POSE_LIMIT[1], r * POSE_LIMIT[2]) for x in (-1, 1) for y in (-1, 1) for r in (-1, 1)
    ]
    for seed in range(40):
        who = Identity.from_seed(seed)
        pose = corners[seed % len(corners)]
        rest = draw(who, CLOSED, pose)
        for mouth in ((1.0, 1.0, 1.0, 1.0), (0.4, -1.0, 0.0, 0.0)):
            spoken = draw(who, mouth, pose)
            assert outside(changed(rest, spoken), jaw_box(128)) == 0
            lips = changed(rest, spoken) & (mouth_pixels(spoken) | mouth_pixels(rest))
            assert lips.sum() > 30
        for blink in (0.5, 1.0):
            shut = changed(rest, draw(who, CLOSED, pose, blink))
            assert shut.sum() > 60
            assert outside(shut, *eye_boxes(128)) == 0


def test_boxes_scale_with_the_picture() -> None:
    assert mouth_box(256) == tuple(2 * value for value in mouth_box(128))
    assert eye_boxes(64)[0][2] <= eye_boxes(64)[1][0]


def test_reference_is_closed_and_awake() -> None:
    who = Identity.from_seed(HELD_OUT_SEED)
    first = reference_frame(who, np.random.default_rng(1))
    assert np.array_equal(first, reference_frame(who, np.random.default_rng(1)))
    assert (np.abs(first.astype(int) - (92, 14, 34)).sum(-1) < 20).sum() < 6


def test_bundled_portrait_shows_a_held_out_identity() -> None:
    with Image.open(files("livetalk_core") / "assets" / "portrait.png") as picture:
        bundled = np.asarray(picture.convert("RGB"), np.float32)
    assert PORTRAIT_SEED >= HELD_OUT_SEED
    assert np.abs(bundled - draw(Identity.from_seed(PORTRAIT_SEED), CLOSED, size=512)).mean() < 1.0


def speech(frames: int = 200) -> np.ndarray:
    """Mouth track with syllables for the first half and silence afterwards."""
    mouth = np.zeros((frames, 4), np.float32)
    half = frames // 2
    mouth[:half, 0] = 0.35 + 0.3 * np.sin(np.arange(half) * 0.9)
    return mouth


def test_motion_is_bounded_smooth_and_repeatable() -> None:
    for seed in range(10):
        track = motion_track(np.random.default_rng(seed), speech(), 1.0)
        assert np.array_equal(track, motion_track(np.random.default_rng(seed), speech(), 1.0))
        assert track.shape == (200, 7) and track.dtype == np.float32
        assert (np.abs(track[:, :3]).max(0) <= POSE_LIMIT).all()
        assert np.abs(np.diff(track[:, :3], axis=0)).max() < 0.5
        assert np.abs(track[:, 5:]).max() < 0.6


def test_blink_marks_the_start_of_a_pause() -> None:
    delays = []
    for seed in range(8):
        closure = motion_track(np.random.default_rng(seed), speech(), 1.0)[:, 3]
        starts = np.flatnonzero((closure[1:] > 0) & (closure[:-1] == 0)) + 1
        assert len(starts) >= 2 and np.diff(starts).max() < 115
        delays.append(min(abs(starts - 102)))
        assert np.allclose(closure[starts[0] : starts[0] + len(BLINK)], BLINK)
    assert np.median(delays) == 0


def test_blinks_follow_from_the_sound_alone() -> None:
    mouth = speech()
    tracks = [motion_track(np.random.default_rng(seed), mouth)[:, 3] for seed in range(3)]
    assert all(np.array_equal(tracks[0], track) for track in tracks)
    later = motion_track(np.random.default_rng(0), np.concatenate([np.zeros((70, 4), np.float32), mouth]))[70:, 3]
    pause = slice(100, 130)
    assert np.array_equal(later[pause], tracks[0][pause])


def test_clip_renders_each_frame_and_rejects_other_lengths() -> None:
    who, mouth = Identity.from_seed(2), speech(6)
    motion = motion_track(np.random.default_rng(0), mouth)
    clip = render_clip(who, mouth, motion, 64)
    assert clip.shape == (6, 64, 64, 3)
    move = motion[3]
    assert np.array_equal(clip[3], draw(who, mouth[3], move[:3], move[3], move[4], move[5:], 64))
    with pytest.raises(TrainingError, match="6 frames"):
        render_clip(who, mouth, motion[:5])
