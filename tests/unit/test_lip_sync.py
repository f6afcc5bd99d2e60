"""The mouth and eye measures, and the scores made from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter

from livetalk_core.errors import CheckpointError, ImageError
from livetalk_core.lip_sync import (
    EYES,
    MOUTH,
    RegionRegressor,
    amplitude_ratio,
    closure_hits,
    count_blinks,
    eye_closure,
    lag_correlation,
    mouth_opening,
)
from livetalk_core.lip_sync.measure import WEIGHTS
from livetalk_core.training.avatars.avatar import (
    HELD_OUT_SEED,
    Identity,
    draw,
    eye_boxes,
    jaw_box,
    mouth_box,
    render_clip,
)
from livetalk_core.training.avatars.motion import motion_track
from livetalk_core.training.speech.visemes import PhonemeEvent, mouth_track

pytestmark = pytest.mark.unit

PEOPLE = [Identity.from_seed(HELD_OUT_SEED + seed) for seed in range(30)]


def faces(opening: float, blink: float = 0.0, size: int = 128) -> NDArray[np.uint8]:
    """The same expression on many held-out people in random poses."""
    rng = np.random.default_rng(3)
    rows = []
    for person in PEOPLE:
        mouth = (opening, rng.uniform(-1, 1), rng.random(), rng.random())
        rows.append(draw(person, mouth, rng.uniform(-1, 1, 3) * (2, 3, 2), blink, size=size))
    return np.stack(rows)


def spoken_track(seed: int) -> NDArray[np.float32]:
    """A mouth track [F,4] of random phonemes, pauses and lip closures."""
    rng = np.random.default_rng(seed)
    events, at = [], 0.2
    for _ in range(50):
        length = float(rng.uniform(0.05, 0.15))
        events.append(PhonemeEvent(at, at + length, str(rng.choice((*"aeioupbmstkfr", "")))))
        at += length
    return mouth_track(events, at + 0.2)


def test_closed_mouths_read_closed_and_open_mouths_open() -> None:
    assert mouth_opening(faces(0.0)).max() < 0.08
    assert mouth_opening(faces(1.0)).min() >= 0.8


def test_reading_is_true_in_amplitude_over_the_whole_range() -> None:
    openings = np.linspace(0.05, 0.95, 7)
    errors = np.array([mouth_opening(faces(float(opening))) - opening for opening in openings])
    assert np.abs(errors.mean(axis=1)).max() < 0.03
    assert np.abs(errors).max() < 0.12


def test_ceiling_on_true_videos_of_held_out_people() -> None:
    for number, person in enumerate(PEOPLE[:4]):
        track = spoken_track(number)
        video = render_clip(person, track, motion_track(np.random.default_rng(number), track))
        measured = mouth_opening(video)
        lag, correlation = lag_correlation(measured, track[:, 0])
        assert lag == 0
        assert correlation >= 0.98
        assert amplitude_ratio(measured, track[:, 0]) == pytest.approx((1.0, 1.0), abs=0.05)


@pytest.mark.parametrize("sigma", [0.8, 1.2])
def test_soft_and_tinted_pictures_read_the_same(sigma: float) -> None:
    for opening in (0.0, 0.3, 0.9):
        clear = faces(opening)
        soft = gaussian_filter(clear.astype(np.float32), (0, sigma, sigma, 0)) * (1.04, 0.98, 1.0)
        spoilt = np.clip(soft + np.array([4, 0, -4]), 0, 255).astype(np.uint8)
        assert np.abs(mouth_opening(spoilt) - mouth_opening(clear)).mean() < 0.05


@pytest.mark.parametrize("size", [64, 256])
def test_other_frame_sizes_read_the_same(size: int) -> None:
    for opening in (0.0, 0.5, 1.0):
        assert mouth_opening(faces(opening, size=size)).mean() == pytest.approx(opening, abs=0.06)


def test_eyes_are_told_from_the_mouth() -> None:
    assert eye_closure(faces(0.8, blink=0.0)).max() < 0.25
    assert eye_closure(faces(0.0, blink=1.0)).min() > 0.75


def test_no_frames_no_values_and_batches_do_not_matter() -> None:
    assert mouth_opening(np.zeros((0, 128, 128, 3), np.uint8)).shape == (0,)
    one = faces(0.6)[:1]
    many = np.repeat(one, 300, axis=0)
    assert np.allclose(mouth_opening(many), mouth_opening(one)[0], atol=1e-5)


@pytest.mark.parametrize("frames", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_wrong_frames_are_refused(frames: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match="uint8 RGB"):
        mouth_opening(frames)


def test_missing_damaged_and_wrong_weights_are_named(tmp_path: Path) -> None:
    frames = np.zeros((1, 128, 128, 3), np.uint8)
    damaged, wrong = tmp_path / "damaged.safetensors", tmp_path / "wrong.safetensors"
    damaged.write_bytes(WEIGHTS.read_bytes()[:500])
    save_file({"mouth.other": torch.zeros(1)}, str(wrong))
    for path in (tmp_path / "none.safetensors", damaged, wrong):
        with pytest.raises(CheckpointError, match=path.name):
            mouth_opening(frames, path)


def test_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size <= 150_000
    for spec in (MOUTH, EYES):
        assert sum(parameter.numel() for parameter in RegionRegressor(spec).parameters()) <= 60_000
    assert all(value.dtype != torch.float32 for value in load_file(str(WEIGHTS)).values())


def test_regions_hold_what_the_renderer_moves() -> None:
    def inside(box: tuple[int, int, int, int], region: tuple[int, int, int, int]) -> bool:
        return region[0] <= box[0] and region[1] <= box[1] and box[2] <= region[2] and box[3] <= region[3]

    assert inside(mouth_box(128), MOUTH.box)
    assert jaw_box(128)[3] <= MOUTH.box[3]
    assert all(inside(box, EYES.box) for box in eye_boxes(128))


@pytest.mark.parametrize("late", [-4, 0, 3, 6])
def test_lag_is_found(late: int) -> None:
    leader = spoken_track(1)[:, 0]
    lag, correlation = lag_correlation(np.roll(leader, late), leader)
    assert lag == late
    assert correlation > 0.95


def test_a_still_curve_correlates_with_nothing() -> None:
    assert lag_correlation(np.full(50, 0.3), np.sin(np.arange(50))) == (0, 0.0)


def test_amplitude_ratio_is_that_of_the_curves() -> None:
    truth = spoken_track(2)[:, 0]
    assert amplitude_ratio(0.6 * truth, truth) == pytest.approx((0.6, 0.6))
    assert np.isnan(amplitude_ratio(truth, np.zeros_like(truth))).all()


def test_closures_are_looked_for_one_frame_around() -> None:
    opening = np.ones(20)
    opening[[5, 10]] = 0.1, 0.3
    times = [5.9 / 25, 6.5 / 25, 7.5 / 25, 10.5 / 25, 99.0]
    assert closure_hits(opening, times).tolist() == [True, True, False, False]
    assert closure_hits(opening, []).shape == (0,)
    assert not closure_hits(np.zeros(len(opening)), times).any()


def test_blinks_are_counted_once_each() -> None:
    assert count_blinks([0, 0.3, 0.8, 1, 0.55, 0.9, 0.3, 0, 0.5, 0, 0.9, 0.1]) == 2
    assert count_blinks(np.ones(10)) == 1
    assert count_blinks([]) == 0
