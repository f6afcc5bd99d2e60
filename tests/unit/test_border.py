"""The fading of chunk borders: what it adds, where it stops, and that streams still resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_bundle import SLICE, picture, speech, stream_config, tiny_bundle

from livetalk_core.config import CorrectionConfig
from livetalk_core.engine import Engine, StreamState, generate
from livetalk_core.errors import ConfigError, StateError
from livetalk_core.retrospective import fade_border

pytestmark = pytest.mark.unit


def test_what_is_added_falls_to_nothing() -> None:
    video, again, shown = torch.zeros(1, 3, 6, 2, 2), torch.zeros(1, 3, 2, 2, 2), torch.ones(1, 3, 1, 2, 2)
    added = fade_border(video, again, shown, 4)[0, 0, :, 0, 0]
    assert 1 > added[0] > added[1] > added[2] > added[3] > 0
    assert (added[4:] == 0).all()
    assert fade_border(video, again, shown, 0) is video
    assert fade_border(video, again, shown, 9).shape == video.shape


def test_the_first_generated_frame_moves_less_and_even_motion_stays() -> None:
    even = torch.arange(8.0).view(1, 1, 8, 1, 1).expand(1, 3, 8, 2, 2)
    shown = even[:, :, 1:2]
    torch.testing.assert_close(fade_border(even[:, :, 2:], even[:, :, :2], shown, 4), even[:, :, 2:])
    jump = even + 3 * (torch.arange(8) >= 2).view(1, 1, 8, 1, 1)
    faded = fade_border(jump[:, :, 2:], jump[:, :, :2], shown, 4)
    assert 1 < float((faded[:, :, 0] - shown[:, :, 0]).mean()) < 4
    torch.testing.assert_close(faded[:, :, 4:], jump[:, :, 6:])


def test_a_still_scene_with_an_offset_passes_without_a_jump() -> None:
    scene = torch.randn(1, 3, 1, 4, 4)
    chunk = scene.expand(-1, -1, 9, -1, -1) + 0.4
    faded = fade_border(chunk[:, :, 2:], chunk[:, :, :2], scene, 6)
    steps = torch.cat([scene, faded], dim=2).diff(dim=2).abs().amax(dim=(0, 1, 3, 4))
    assert float(steps.max()) < 0.4 / 4


@pytest.mark.parametrize("mode", ["stream", "whole"])
def test_only_the_first_frames_after_a_border_change(mode: str) -> None:
    engine, sound = Engine(tiny_bundle()), speech(3 * SLICE)
    plain, faded = (
        [chunk.frames for chunk in generate(engine, stream_config(mode=mode, border_fade=fade), picture(), [sound])]
        for fade in (0, 2)
    )
    assert np.array_equal(plain[0], faded[0])
    for before, after in zip(plain[1:], faded[1:], strict=True):
        assert not np.array_equal(before[:1], after[:1])
        assert np.array_equal(before[2:], after[2:])


def test_a_stream_with_faded_borders_resumes_bit_for_bit() -> None:
    engine, config, sound = Engine(tiny_bundle()), stream_config(border_fade=2), speech(3 * SLICE)
    stream = engine.open_stream(config, picture())
    parts = [sound[k * SLICE : (k + 1) * SLICE] for k in range(3)]
    straight = [stream.step(part).frames for part in parts[:2]]
    saved = StreamState.from_bytes(stream.state.to_bytes())
    straight.append(stream.step(parts[2]).frames)
    again = engine.open_stream(config, picture(), state=saved)
    assert np.array_equal(again.step(parts[2]).frames, straight[2])
    assert saved.border is not None and saved.border.shape == (1, 3, 1, 32, 32)
    with pytest.raises(StateError, match="border_fade"):
        engine.open_stream(stream_config(), picture(), state=saved)


def test_plain_streams_keep_no_frame() -> None:
    stream = Engine(tiny_bundle()).open_stream(stream_config(), picture())
    stream.step(speech(SLICE))
    assert stream.state.border is None


@pytest.mark.parametrize("frames", [-1, 17])
def test_impossible_lengths_are_refused(frames: int) -> None:
    with pytest.raises(ConfigError, match="border_fade"):
        CorrectionConfig(border_fade=frames)
