"""The sound path: ring, slices, loudness, windows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from livetalk_core.audio import AudioEncoder, AudioRing, check_samples, cut_slices, match_loudness
from livetalk_core.config import AudioConfig, ChunkGeometry
from livetalk_core.errors import AudioError

pytestmark = pytest.mark.unit

RATE = 16_000


def tone(seconds: float, amplitude: float = 0.1, frequency: float = 440.0) -> NDArray[np.float32]:
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def mean_features(samples: Tensor, frames: int) -> Tensor:
    """Features that show where they come from: the mean sample of each frame, in 2 layers of 1 channel."""
    mean = samples.unflatten(1, (frames, -1)).mean(dim=2)
    return torch.stack([mean, 2 * mean], dim=2).unsqueeze(3)


def test_a_ring_keeps_the_newest_samples_and_old_rings_stay_valid() -> None:
    ring = AudioRing.silent(5)
    one = ring.push(np.array([1, 2], np.float32))
    two = one.push(np.array([3, 4, 5, 6, 7, 8, 9], np.float32))
    assert one.samples.tolist() == [0, 0, 0, 1, 2]
    assert two.samples.tolist() == [5, 6, 7, 8, 9]
    assert ring.samples.tolist() == [0] * 5
    assert one.push(np.zeros(0, np.float32)).samples.tolist() == one.samples.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_refused_with_their_time(bad: float) -> None:
    samples = np.zeros(RATE, np.float32)
    samples[8000] = bad
    with pytest.raises(AudioError, match=r"Sample 24000 \(at 1.500 s\) is (nan|-?inf)"):
        check_samples(samples, RATE, first=RATE)


def test_two_channels_are_refused() -> None:
    with pytest.raises(AudioError, match=r"shape \(2, 100\)"):
        check_samples(np.zeros((2, 100)), RATE)


@pytest.mark.parametrize(
    "sizes", [[1000], [1, 2, 3, 994], [300] * 3 + [100], [250, 250, 250, 250], [0, 1000, 0]]
)
def test_slices_do_not_depend_on_how_the_sound_arrives(sizes: list[int]) -> None:
    sound = np.arange(1000, dtype=np.float32)
    blocks = np.split(sound, np.cumsum(sizes)[:-1])
    slices = list(cut_slices(blocks, 300, RATE))
    assert [len(part) for part in slices] == [300, 300, 300, 100]
    assert np.array_equal(np.concatenate(slices), sound)


def test_slices_can_skip_and_stop() -> None:
    blocks = np.split(np.arange(1000, dtype=np.float32), 10)
    slices = list(cut_slices(blocks, 300, RATE, limit=950, skip=250))
    assert np.array_equal(np.concatenate(slices), np.arange(250, 950, dtype=np.float32))
    assert [len(part) for part in slices] == [300, 300, 100]


def test_a_full_slice_comes_at_once_and_nothing_is_read_past_the_limit() -> None:
    read: list[int] = []

    def blocks() -> Iterator[NDArray[np.float32]]:
        for number in range(100):
            read.append(number)
            yield np.zeros(100, np.float32)

    slices = cut_slices(blocks(), 300, RATE, limit=450)
    next(slices)
    assert len(read) == 3
    assert [len(part) for part in slices] == [150]
    assert len(read) == 5


def test_a_bad_sample_is_located_in_the_whole_sound() -> None:
    blocks = [np.zeros(100, np.float32), np.array([0, np.nan], np.float32)]
    with pytest.raises(AudioError, match="Sample 101 "):
        list(cut_slices(blocks, 300, RATE))


def test_loudness_reaches_its_target_from_any_level() -> None:
    import pyloudnorm

    meter = pyloudnorm.Meter(RATE)
    for amplitude in (0.001, 0.1, 0.9):
        loud = match_loudness(tone(2.0, amplitude), RATE, -23.0)
        assert meter.integrated_loudness(loud.astype(np.float64)) == pytest.approx(-23.0, abs=0.1)
        assert loud.dtype == np.float32


@pytest.mark.parametrize("sound", [np.zeros(RATE, np.float32), tone(0.39), np.full(RATE, 1e-9, np.float32)])
def test_silence_and_very_short_sound_stay_as_they_are(sound: NDArray[np.float32]) -> None:
    assert np.array_equal(match_loudness(sound, RATE, -23.0), sound)


def encoder(geometry: ChunkGeometry, context: int = 2) -> AudioEncoder:
    return AudioEncoder(mean_features, geometry, AudioConfig(context=context))


def test_stream_windows_end_with_the_newest_frame() -> None:
    geometry = ChunkGeometry()
    ramp = np.repeat(np.arange(200, dtype=np.float32), 640) * 1e-6
    windows = encoder(geometry).stream_windows(AudioRing(ramp))
    gain = float(windows[0, -1, 2, 0, 0]) / 199e-6
    assert windows.shape == (1, 33, 5, 2, 1)
    centre = windows[0, :, 2, 0, 0] / gain / 1e-6
    assert centre.tolist() == pytest.approx(list(range(167, 200)), rel=1e-3)
    newest = windows[0, -1, :, 0, 0] / gain / 1e-6
    assert newest.tolist() == pytest.approx([197, 198, 199, 199, 199], rel=1e-3)


def test_the_end_of_a_whole_clip_is_padded_with_silence_not_dropped() -> None:
    geometry = ChunkGeometry()
    sound = tone(1.0) + 0.01
    features = encoder(geometry).encode_clip(sound, 33)
    assert features.shape == (33, 2, 1)
    loud = match_loudness(sound, RATE, -23.0)
    assert torch.allclose(features[:25], mean_features(torch.from_numpy(loud)[None], 25)[0])
    assert not features[25:].any()


def test_streamed_features_equal_those_of_the_clip_once_the_window_holds_it_all() -> None:
    geometry = ChunkGeometry()
    sound = tone(geometry.window_seconds, 0.2) * np.linspace(0, 1, geometry.window_samples, dtype=np.float32)
    ring = AudioRing.silent(geometry.window_samples)
    for part in cut_slices(np.split(sound, 7 * [0] + [1000, 5000]), geometry.slice_samples, RATE):
        ring = ring.push(part)
    audio = encoder(geometry)
    clip = audio.encode_clip(sound, geometry.window_frames)
    assert torch.equal(audio.stream_windows(ring), audio.windows(clip, 167, 33))
