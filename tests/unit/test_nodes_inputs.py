"""ComfyUI's tensors and dictionaries as the engine's sound and pictures."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from cli_tools import speech, write_wav

from livetalk_core.errors import AudioError, ConfigError, ImageError
from livetalk_core.media import load_picture, open_sound
from livetalk_core.production import BUNDLED_PORTRAIT
from nodes import inputs

pytestmark = pytest.mark.unit


def image(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_a_loaded_picture_comes_back_bit_for_bit() -> None:
    pixels = np.asarray(load_picture(BUNDLED_PORTRAIT))
    loaded = torch.from_numpy(pixels.astype(np.float32) / 255.0)[None]
    assert np.array_equal(np.asarray(inputs.picture(loaded)), pixels)


def test_grey_transparent_and_batched_pictures() -> None:
    grey = inputs.picture(image(2, 40, 50, 1))
    assert grey.mode == "RGB" and grey.size == (50, 40)
    clear = torch.cat([image(1, 40, 50, 3), torch.zeros(1, 40, 50, 1)], dim=3)
    assert np.asarray(inputs.picture(clear)).min() == 255


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "holds nothing"),
        ("portrait.png", "holds a str"),
        (torch.zeros(0, 64, 64, 3), "0 picture"),
        (torch.zeros(1, 0, 0, 3), "0x0"),
        (torch.zeros(1, 64, 31, 3), "31x64"),
        (torch.zeros(64, 64, 3), "shape [64, 64, 3]"),
        (torch.zeros(1, 64, 64, 2), "shape [1, 64, 64, 2]"),
        (torch.full((1, 64, 64, 3), torch.nan), "not numbers"),
    ],
)
def test_unusable_pictures_are_refused_by_name(value: Any, words: str) -> None:
    with pytest.raises(ImageError) as caught:
        inputs.picture(value)
    assert words in caught.value.message and caught.value.hint


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_sound_is_what_reading_its_file_gives(tmp_path: Path, rate: int) -> None:
    mono = speech(3.3)
    file = write_wav(tmp_path / "speech.wav", mono, rate)
    loaded = {"waveform": torch.from_numpy(mono.astype(np.float32) / 32768)[None, None], "sample_rate": rate}
    with open_sound(file) as reader:
        expected = np.concatenate(list(reader))
    assert np.array_equal(inputs.sound(loaded, 16_000, tmp_path), expected)


def test_channels_are_averaged_and_long_sound_waits_in_a_file(tmp_path: Path) -> None:
    left, right = torch.rand(2, 61 * 16_000, generator=torch.Generator().manual_seed(2)) - 0.5
    audio = {"waveform": torch.stack([left, right])[None], "sample_rate": 16_000}
    samples = inputs.sound(audio, 16_000, tmp_path / "new")
    left_over = 0 if os.name == "posix" else 1  # the file goes with the last that needs it
    assert isinstance(samples, np.memmap) and len(list((tmp_path / "new").iterdir())) == left_over
    assert np.allclose(samples, (left + right).numpy() / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "holds nothing"),
        ({}, "holds nothing"),
        ({"waveform": torch.zeros(1, 1, 100), "sample_rate": 0}, "rate of 0"),
        ({"waveform": torch.zeros(1, 1, 100), "sample_rate": "fast"}, "rate of 'fast'"),
        ({"waveform": torch.zeros(1, 2, 0), "sample_rate": 48_000}, "empty"),
        ({"waveform": torch.zeros(3, 1, 100), "sample_rate": 48_000}, "3 clips"),
        ({"waveform": torch.zeros(100), "sample_rate": 48_000}, "shape [100]"),
        ({"waveform": torch.full((1, 1, 100), torch.inf), "sample_rate": 48_000}, "not a number"),
    ],
)
def test_unusable_sound_is_refused_by_name(tmp_path: Path, value: Any, words: str) -> None:
    with pytest.raises(AudioError) as caught:
        inputs.sound(value, 16_000, tmp_path)
    assert words in caught.value.message and caught.value.hint


def test_long_sound_that_turns_bad_leaves_no_file(tmp_path: Path) -> None:
    waveform = torch.zeros(1, 2, 70 * 1000)
    waveform[..., -1] = float("nan")
    with pytest.raises(AudioError):
        inputs.sound({"waveform": waveform, "sample_rate": 1000}, 1000, tmp_path)
    assert not list(tmp_path.iterdir())


def test_features_of_the_core_nodes() -> None:
    features = torch.zeros(1, 512, 4096)
    assert inputs.text_features([[features, {"pooled_output": None}]]) is features
    seen = SimpleNamespace(penultimate_hidden_states=torch.zeros(1, 257, 1280))
    assert inputs.image_features(seen) is seen.penultimate_hidden_states
    for bad in ([], [[]], [[torch.zeros(2, 512, 4096), {}]], None):
        with pytest.raises(ConfigError):
            inputs.text_features(bad)
    with pytest.raises(ConfigError):
        inputs.image_features(SimpleNamespace())
