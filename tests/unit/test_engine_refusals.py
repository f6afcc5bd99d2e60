"""What the engine refuses, and what a chunk that fails or is left leaves behind: nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_bundle import SLICE, picture, speech, stream_config, tiny_bundle
from torch import Tensor

from livetalk_core.config import AudioConfig, ChunkGeometry
from livetalk_core.engine import Engine, generate
from livetalk_core.errors import AudioError, ConfigError, NumericalError
from livetalk_core.sampling import PhiloxNoise

pytestmark = pytest.mark.unit


def test_whole_mode_refuses_long_sound_and_names_stream_mode(engine: Engine) -> None:
    with pytest.raises(AudioError, match=r"120\.\d s; whole mode takes at most 120 s.*'stream'"):
        list(generate(engine, stream_config(mode="whole"), picture(), [speech(121 * 16_000)]))


@pytest.mark.parametrize("mode", ["stream", "whole"])
@pytest.mark.parametrize("blocks", [[], [np.zeros(0, np.float32)]])
def test_no_sound_is_an_error(engine: Engine, mode: str, blocks: list[NDArray[np.float32]]) -> None:
    with pytest.raises(AudioError, match="empty"):
        list(generate(engine, stream_config(mode=mode), picture(), blocks))


@pytest.mark.parametrize("mode", ["stream", "whole"])
def test_samples_that_are_not_numbers_are_refused(engine: Engine, mode: str) -> None:
    sound = speech(SLICE)
    sound[1600] = np.nan
    with pytest.raises(AudioError, match=r"at 0.100 s\) is nan"):
        list(generate(engine, stream_config(mode=mode), picture(), [sound]))


@pytest.mark.parametrize("samples", [0, SLICE + 1])
def test_a_chunk_wants_its_own_amount_of_sound(engine: Engine, samples: int) -> None:
    with pytest.raises(AudioError, match=f"given {samples} samples"):
        engine.open_stream(stream_config(), picture()).step(np.zeros(samples, np.float32))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_max_seconds_is_checked(engine: Engine, value: float) -> None:
    with pytest.raises(ConfigError, match="max_seconds"):
        list(generate(engine, stream_config(), picture(), [speech(SLICE)], max_seconds=value))


class BrokenNoise(PhiloxNoise):
    """NaN from one chunk on."""

    def draw(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
        return super().draw(chunk, index, shape) * (float("nan") if chunk == 1 else 1.0)


def test_nan_is_caught_before_decoding_and_the_stream_stands_where_it_stood() -> None:
    sound = speech(2 * SLICE)
    stream = Engine(tiny_bundle(), BrokenNoise(5)).open_stream(stream_config(), picture())
    stream.step(sound[:SLICE])
    before, seen = stream.state, []
    with pytest.raises(NumericalError, match="chunk 1") as caught:
        stream.step(sound[SLICE:], lambda name, tensor: seen.append(name))
    assert stream.state is before and "decoded" not in seen
    assert caught.value.details["chunk"] == 1
    healthy = Engine(tiny_bundle()).open_stream(stream_config(), picture(), state=before)
    assert np.array_equal(
        healthy.step(sound[SLICE:]).frames,
        list(generate(Engine(tiny_bundle()), stream_config(), picture(), [sound]))[1].frames,
    )


class LeftError(Exception):
    """Raised by whoever no longer wants the chunk."""


PLACES = [("audio", 0, 2), ("step", 0, 2), ("step", 1, 2), ("decode", 2, 2), ("finish", 2, 2)]


def test_progress_names_every_part_of_a_chunk(engine: Engine) -> None:
    seen: list[tuple[str, int, int]] = []
    blocks = [speech(2 * SLICE)]
    assert len(list(generate(engine, stream_config(), picture(), blocks, progress=lambda *at: seen.append(at)))) == 2
    assert seen == 2 * PLACES


@pytest.mark.parametrize("place", PLACES)
def test_a_chunk_that_is_left_changes_nothing(engine: Engine, place: tuple[str, int, int]) -> None:
    def leave(*at: object) -> None:
        if at == place:
            raise LeftError

    stream, sound = engine.open_stream(stream_config(), picture()), speech(2 * SLICE)
    stream.step(sound[:SLICE])
    before = stream.state
    with pytest.raises(LeftError):
        stream.step(sound[SLICE:], progress=leave)
    assert stream.state is before
    undisturbed = list(generate(engine, stream_config(), picture(), [sound]))
    assert np.array_equal(stream.step(sound[SLICE:]).frames, undisturbed[1].frames)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"audio": AudioConfig(context=1)}, "audio.context is 1, the model tiny needs 2"),
        ({"geometry": ChunkGeometry(frames=9, motion_frames=3, temporal_stride=2)}, "temporal_stride is 2"),
        ({"geometry": ChunkGeometry(frames=9, motion_frames=5, spatial_stride=4)}, "spatial_stride is 4"),
    ],
)
def test_settings_that_the_model_cannot_follow(engine: Engine, change: dict, message: str) -> None:
    import msgspec

    config = msgspec.structs.replace(stream_config(), **change)
    with pytest.raises(ConfigError, match=message):
        engine.open_stream(config, picture())


def test_mode_and_clip_must_agree(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="without an encoded clip"):
        engine.open_stream(stream_config(mode="whole"), picture())
    clip = engine.encode_whole(speech(SLICE), stream_config())
    with pytest.raises(ConfigError, match="with an encoded clip"):
        engine.open_stream(stream_config(), picture(), clip=clip)
