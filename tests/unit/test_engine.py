"""The streaming engine: lengths, resume, whole clips, settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_bundle import GEOMETRY, SLICE, frames_of, picture, speech, stream_config, tiny_bundle

from livetalk_core import telemetry
from livetalk_core.engine import Engine, StreamState, constants, generate, step
from livetalk_core.engine.step import STAGES, to_frames
from livetalk_core.errors import StateError

pytestmark = pytest.mark.unit
FRAME = GEOMETRY.samples_per_frame


@pytest.mark.parametrize("mode", ["stream", "whole"])
@pytest.mark.parametrize("seconds", [0.001, 0.2, 0.36, 0.5, 1.0, 1.12])
def test_the_video_is_as_long_as_the_sound(engine: Engine, mode: str, seconds: float) -> None:
    sound = speech(round(seconds * 16_000))
    config = stream_config(mode=mode, steps=1)
    chunks = list(generate(engine, config, picture(), [sound]))
    total = sum(len(chunk.frames) for chunk in chunks)
    assert total == max(1, int(len(sound) / FRAME + 0.5))
    starts = np.cumsum([0] + [len(chunk.frames) for chunk in chunks])
    assert [chunk.first_frame for chunk in chunks] == starts[:-1].tolist()
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


def test_chunks_are_pictures_with_timings(engine: Engine) -> None:
    (chunk,) = generate(engine, stream_config(), picture(), [speech(SLICE)])
    assert chunk.frames.shape == (4, 32, 32, 3) and chunk.frames.dtype == np.uint8
    assert chunk.frames.std() > 1
    assert set(chunk.timings) == set(STAGES) and min(chunk.timings.values()) >= 0
    assert chunk.stats["peak_latent"] > 0
    assert chunk.stats["drift"] > 0
    assert {"drift_color", "drift_sharpness", "drift_similarity"} < set(chunk.stats)


def test_the_video_does_not_depend_on_how_the_sound_arrives(engine: Engine) -> None:
    sound = speech(2 * SLICE + 1000)
    whole = frames_of(generate(engine, stream_config(), picture(), [sound]))
    pieces = frames_of(generate(engine, stream_config(), picture(), np.array_split(sound, 37)))
    assert np.array_equal(whole, pieces)


def test_a_longer_sound_has_the_same_beginning(engine: Engine) -> None:
    sound = speech(3 * SLICE)
    long = frames_of(generate(engine, stream_config(), picture(), [sound]))
    short = frames_of(generate(engine, stream_config(), picture(), [sound[: 2 * SLICE]]))
    assert np.array_equal(long[: len(short)], short)


def test_seed_sound_and_picture_decide_the_video(engine: Engine) -> None:
    sound = speech(SLICE)
    base = frames_of(generate(engine, stream_config(), picture(), [sound]))
    again = frames_of(generate(engine, stream_config(), picture(), [sound]))
    assert np.array_equal(base, again)
    for config, image, audio in (
        (stream_config(seed=6), picture(), sound),
        (stream_config(), picture(1), sound),
        (stream_config(), picture(), speech(SLICE, seed=1)),
        (stream_config(steps=4), picture(), sound),
        (stream_config(color_strength=0.0), picture(), sound),
    ):
        assert not np.array_equal(base, frames_of(generate(engine, config, image, [audio])))


@pytest.mark.parametrize("mode", ["stream", "whole"])
@pytest.mark.parametrize("after", [1, 2])
def test_resume_equals_no_interruption_bit_for_bit(engine: Engine, mode: str, after: int) -> None:
    sound, config = speech(3 * SLICE + 700), stream_config(mode=mode)
    uninterrupted = list(generate(engine, config, picture(), [sound]))
    clip = engine.encode_whole(sound, config) if mode == "whole" else None
    stream = engine.open_stream(config, picture(), clip=clip)
    first = [stream.step(None if clip else sound[k * SLICE : (k + 1) * SLICE]) for k in range(after)]
    state = StreamState.from_bytes(stream.state.to_bytes())
    rest = list(generate(Engine(tiny_bundle()), config, picture(), [sound], state=state))
    assert np.array_equal(frames_of(first + rest), frames_of(uninterrupted))
    assert [chunk.index for chunk in rest] == list(range(after, len(uninterrupted)))


def test_resume_of_a_finished_stream_gives_nothing(engine: Engine) -> None:
    stream = engine.open_stream(stream_config(), picture())
    stream.step(speech(100))
    assert list(generate(engine, stream_config(), picture(), [speech(100)], state=stream.state)) == []
    with pytest.raises(StateError, match="ended"):
        stream.step(speech(100))


def test_step_is_a_function_of_its_arguments(engine: Engine) -> None:
    stream = engine.open_stream(stream_config(), picture())
    start, sound = stream.state, speech(SLICE)
    chunk, after = step(stream.constants, start, sound)
    again, _ = step(stream.constants, start, sound)
    assert np.array_equal(chunk.frames, again.frames)
    assert (start.chunk, start.motion, stream.state) == (0, None, start)
    assert after.chunk == 1 and after.motion is not None and after.samples == SLICE
    assert after.motion.shape[2] == GEOMETRY.motion_latents


def test_the_first_motion_latent_is_the_encoded_picture(engine: Engine) -> None:
    constants = engine.open_stream(stream_config(), picture()).constants
    alone = engine.bundle.vae.encode(constants.picture)
    assert torch.allclose(constants.first_motion, alone, atol=1e-5)
    assert constants.y.shape == (1, 20, 3, 4, 4)
    assert bool((constants.y[:, :4, 0] == 1).all()) and not constants.y[:, :4, 1:].any()


def test_whole_mode_keeps_every_frame_over_its_sound(engine: Engine) -> None:
    sound, config = speech(20 * FRAME), stream_config(mode="whole")
    stream = engine.open_stream(config, picture(), clip=engine.encode_whole(sound, config))
    assert len(stream.step().frames) == GEOMETRY.frames
    assert len(stream.step().frames) == GEOMETRY.slice_frames
    assert stream.state.samples == 13 * FRAME


def test_only_the_needed_sound_is_read(engine: Engine) -> None:
    read: list[int] = []

    def endless() -> Iterator[NDArray[np.float32]]:
        while True:
            read.append(1)
            yield speech(SLICE)

    chunks = list(generate(engine, stream_config(), picture(), endless(), max_seconds=0.2))
    assert sum(len(chunk.frames) for chunk in chunks) == 5
    assert len(read) == 2


def test_frames_go_where_they_are_wanted(engine: Engine) -> None:
    streams = [engine.open_stream(stream_config(), picture()) for _ in range(3)]
    memory = np.zeros((GEOMETRY.slice_frames, 32, 32, 3), np.uint8)
    usual = streams[0].step(speech(SLICE))
    given = streams[1].step(speech(SLICE), target=lambda shape: memory[: shape[0]])
    unwanted = streams[2].step(speech(SLICE), target=lambda shape: None)
    assert np.shares_memory(given.frames, memory) and np.array_equal(memory, usual.frames)
    assert unwanted.frames.shape == (0, 32, 32, 3)
    assert streams[2].state.samples == streams[0].state.samples


def test_a_prompt_that_the_model_cannot_use_is_reported(engine: Engine) -> None:
    events: list[telemetry.Event] = []
    with telemetry.listening(events.append):
        engine.open_stream(stream_config(), picture())
        engine.open_stream(stream_config(prompt="A smiling person."), picture())
    assert [(event.name, event.level) for event in events] == [("prompt_ignored", logging.WARNING)]


def test_second_stream_of_a_picture_costs_little_and_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, computed = Engine(tiny_bundle()), []
    real = constants.reference_latents
    monkeypatch.setattr(constants, "reference_latents", lambda *given: computed.append(1) or real(*given))
    first = engine.open_stream(stream_config(), picture())
    again = engine.open_stream(stream_config(seed=6), picture())
    assert len(computed) == 1 and again.constants.y is first.constants.y
    for other in (
        {"config": stream_config(prompt="x"), "picture": picture()},
        {"config": stream_config(), "picture": picture(1)},
        {"config": stream_config(width=64), "picture": picture()},
        {"config": stream_config(), "picture": picture(), "clip_features": torch.zeros(1, 5, 16)},
    ):
        engine.open_stream(**other)
    assert len(computed) == 5
    fresh = engine.open_stream(stream_config(), picture())
    assert len(computed) == 6 and np.array_equal(first.step(speech(SLICE)).frames, fresh.step(speech(SLICE)).frames)


def test_given_text_and_image_features_take_the_place_of_the_encoders(engine: Engine) -> None:
    base = engine.open_stream(stream_config(), picture())
    ours = engine.open_stream(
        stream_config(), picture(), context=torch.ones(1, 3, 8), clip_features=torch.zeros(1, 5, 16)
    )
    assert not np.array_equal(base.step(speech(SLICE)).frames, ours.step(speech(SLICE)).frames)


def test_values_are_rounded_not_truncated() -> None:
    video = torch.tensor([-1.0, -0.9999, 1 / 255, 0.9999, 1.0, 1.5]).view(1, 1, 1, 1, 6).expand(1, 3, 1, 1, 6)
    assert to_frames(video)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_half_precision_runs_and_resembles_full_precision() -> None:
    bundle = tiny_bundle()
    import copy

    half = replace(
        bundle, dtype=torch.bfloat16,
        transformer=copy.deepcopy(bundle.transformer).to(torch.bfloat16),
        vae=copy.deepcopy(bundle.vae).to(torch.bfloat16),
    )  # fmt: skip
    sound = speech(SLICE)
    full = frames_of(generate(Engine(bundle), stream_config(), picture(), [sound])).astype(int)
    low = frames_of(generate(Engine(half), stream_config(), picture(), [sound])).astype(int)
    assert np.abs(full - low).mean() < 10
