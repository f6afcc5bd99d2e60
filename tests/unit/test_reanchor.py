"""Re-anchoring: off it changes nothing, on it leaves shown frames alone, and a resumed stream does the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from tiny_bundle import GEOMETRY, SLICE, frames_of, picture, speech, stream_config, tiny_bundle
from torch import Tensor

from livetalk_core.config import MAX_LOOKBACK, ChunkGeometry, CorrectionConfig, decode_config
from livetalk_core.engine import Chunk, Engine, Stream, StreamState, generate
from livetalk_core.engine.reanchor import FIRST_DRAW, last_borders
from livetalk_core.errors import ConfigError, NumericalError, StateError
from livetalk_core.models.vae import WanVideoVAE
from livetalk_core.sampling import PhiloxNoise

pytestmark = pytest.mark.unit

ALWAYS = {"lookback": 3, "drift_threshold": 0.0}
SOUND = speech(4 * SLICE)


def chunks_of(engine: Engine, sound: NDArray[np.float32] = SOUND, **changes: Any) -> list[Chunk]:
    return list(generate(engine, stream_config(**changes), picture(), [sound]))


@pytest.fixture(scope="module")
def published(engine: Engine) -> list[Chunk]:
    """The chunks of a stream that is never re-anchored; read only."""
    return chunks_of(engine)


@pytest.mark.parametrize(
    "changes",
    [
        {"lookback": 0, "drift_threshold": 0.0, "renoise": 1.0, "anchor": "first_chunk"},
        {"lookback": 5, "drift_threshold": 100.0},
        {"lookback": 5, "drift_threshold": 0.0, "renoise": 0.0},
    ],
)
def test_without_it_the_stream_is_the_published_one_bit_for_bit(
    engine: Engine, published: list[Chunk], changes: dict[str, Any]
) -> None:
    here = chunks_of(engine, **changes)
    assert np.array_equal(frames_of(published), frames_of(here))
    assert all(chunk.stats["reanchored"] == 0 and "reanchor" not in chunk.timings for chunk in here)


@pytest.mark.parametrize("lookback", [1, 2, MAX_LOOKBACK])
def test_the_chunk_itself_stays_and_the_next_one_changes(engine: Engine, published: list[Chunk], lookback: int) -> None:
    here = chunks_of(engine, **{**ALWAYS, "lookback": lookback})
    assert np.array_equal(published[0].frames, here[0].frames)
    assert all(not np.array_equal(a.frames, b.frames) for a, b in zip(published[1:], here[1:], strict=True))
    # The last chunk of the sound may be followed by another one: the stream does not know yet.
    assert all(chunk.stats["reanchored"] == 1 and chunk.timings["reanchor"] > 0 for chunk in here)


def test_only_chunks_above_the_threshold_are_looked_back_from(engine: Engine, published: list[Chunk]) -> None:
    drifts = sorted(chunk.stats["drift"] for chunk in published)
    some = chunks_of(engine, lookback=1, drift_threshold=drifts[len(drifts) // 2])
    for chunk in some:
        assert chunk.stats["reanchored"] == (chunk.stats["drift"] > drifts[len(drifts) // 2])


def test_every_setting_changes_the_stream(engine: Engine) -> None:
    sound = SOUND[: 2 * SLICE]
    base = frames_of(chunks_of(engine, sound, **ALWAYS))
    for changes in ({"lookback": 1}, {"renoise": 0.9}, {"seed": 6}, {"color_strength": 0.0}):
        assert not np.array_equal(base, frames_of(chunks_of(engine, sound, **{**ALWAYS, **changes})))


def test_the_first_chunk_as_anchor_has_not_drifted(engine: Engine, published: list[Chunk]) -> None:
    chunks = chunks_of(engine, anchor="first_chunk")
    assert chunks[0].stats["drift"] < 1e-3 < min(chunk.stats["drift"] for chunk in chunks[1:])
    assert np.array_equal(frames_of(chunks), frames_of(published)), "measuring changes no picture"
    assert published[0].stats["drift"] > 1e-3


@pytest.mark.parametrize(
    ("mode", "anchor", "lookback", "after"),
    [
        ("stream", "reference", 1, 1),
        ("stream", "first_chunk", 3, 1),
        ("stream", "reference", 5, 3),
        ("whole", "first_chunk", 5, 2),
    ],
)
def test_resume_equals_no_interruption_bit_for_bit(
    engine: Engine, mode: str, anchor: str, lookback: int, after: int
) -> None:
    config = stream_config(mode=mode, anchor=anchor, lookback=lookback, drift_threshold=0.0, steps=1)
    expected = list(generate(engine, config, picture(), [SOUND]))
    clip = engine.encode_whole(SOUND, config) if mode == "whole" else None
    stream = engine.open_stream(config, picture(), clip=clip)
    for index in range(after):
        stream.step(None if clip else SOUND[index * SLICE : (index + 1) * SLICE])
    state = StreamState.from_bytes(stream.state.to_bytes())
    assert _borders(state) == min(max(0, lookback - 2), after - 1)
    rest = list(generate(Engine(tiny_bundle()), config, picture(), [SOUND], state=state))
    assert np.array_equal(frames_of(rest), frames_of(expected[after:]))
    assert [chunk.stats for chunk in rest] == [chunk.stats for chunk in expected[after:]]


def _borders(state: StreamState) -> int:
    return 0 if state.history is None else state.history.shape[2] // GEOMETRY.motion_latents


@pytest.mark.parametrize(("lookback", "chunks"), [(1, 1), (1, 3), (2, 1), (2, 3), (3, 2), (4, 6), (5, 7)])
def test_the_last_borders_come_in_order_and_fill_up_with_the_oldest(lookback: int, chunks: int) -> None:
    config = stream_config(lookback=lookback, drift_threshold=100.0, steps=1)
    stream = Engine(tiny_bundle()).open_stream(config, picture())
    ends: list[Tensor] = []
    for index in range(chunks):
        before = stream.state
        stream.step(speech(SLICE, index))
        assert stream.state.motion is not None
        ends.append(stream.state.motion)
    found = last_borders(stream.constants, before, ends[-1]).split(GEOMETRY.motion_latents, dim=2)
    expected = [ends[0]] * max(0, lookback - chunks) + ends[-lookback:]
    assert len(found) == lookback
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("geometry", [(9, 1), (9, 5), (13, 9), (17, 5)])
def test_other_chunk_lengths_and_number_formats(dtype: torch.dtype, geometry: tuple[int, int]) -> None:
    lengths = ChunkGeometry(frames=geometry[0], motion_frames=geometry[1], window_seconds=1)
    config = stream_config(geometry=lengths, **{**ALWAYS, "lookback": MAX_LOOKBACK})
    stream = Engine(tiny_bundle(dtype=dtype)).open_stream(config, picture())
    for _ in range(2):
        chunk = stream.step(speech(lengths.slice_samples))
        assert chunk.stats["reanchored"] == 1 and chunk.frames.std() > 1
        assert stream.state.motion is not None and stream.state.motion.dtype == dtype
        assert stream.state.motion.shape[2] == lengths.motion_latents


def test_its_noise_has_draws_of_its_own() -> None:
    asked: list[tuple[int, int]] = []

    class Recorder(PhiloxNoise):
        def draw(self, chunk: int, index: int, shape: tuple[int, ...]) -> Tensor:
            asked.append((chunk, index))
            return super().draw(chunk, index, shape)

    chunks_of(Engine(tiny_bundle(), Recorder(5)), SOUND[: 2 * SLICE], steps=4, **ALWAYS, renoise=0.9)
    assert len(set(asked)) == len(asked)
    # 0.9 lies above two of the sampler's levels, .833 and .625.
    assert [index - FIRST_DRAW for chunk, index in asked if chunk == 0 and index >= FIRST_DRAW] == [0, 1, 2]


def test_it_can_be_left_between_two_steps_and_leaves_the_stream_where_it_stood(engine: Engine) -> None:
    stream = engine.open_stream(stream_config(**ALWAYS, renoise=1.0), picture())
    before, calls = stream.state, [0]

    def leave(phase: str, step: int, steps: int) -> None:
        calls[0] += phase == "finish"
        # Once before the frames are finished, then before every step of the re-anchoring.
        if calls[0] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream.step(speech(SLICE), progress=leave)
    assert stream.state is before


def test_broken_numbers_are_not_passed_on() -> None:
    bundle = tiny_bundle()

    class Broken(WanVideoVAE):
        encoded = 0

        def encode(self, video: Tensor, tail: int = 0) -> Tensor:
            if video.shape[2] == GEOMETRY.motion_frames:
                self.encoded += 1
            return super().encode(video, tail) * (float("nan") if self.encoded == 2 else 1)

    stream = Engine(replace(bundle, vae=Broken(bundle.vae.vae))).open_stream(stream_config(**ALWAYS), picture())
    with pytest.raises(NumericalError, match="motion latents of chunk 0"):
        stream.step(speech(SLICE))


def stepped(engine: Engine, count: int, **changes: Any) -> Stream:
    stream = engine.open_stream(stream_config(**changes), picture())
    for index in range(count):
        stream.step(speech(SLICE, index))
    return stream


@pytest.fixture(scope="module")
def anchored(engine: Engine) -> Stream:
    """A stream that has a history and an anchor; nobody may step it."""
    return stepped(engine, 3, lookback=3, anchor="first_chunk")


@pytest.mark.parametrize(
    "broken",
    [
        lambda state: replace(state, history=None),
        lambda state: replace(state, history=state.history[..., :1]),
        lambda state: replace(state, history=torch.cat([state.history] * 2, dim=2)),
        lambda state: replace(state, history=state.history.bfloat16()),
        lambda state: replace(state, anchor=None),
        lambda state: replace(state, anchor=replace(state.anchor, luma=state.anchor.luma[:1])),
    ],
)
def test_a_state_that_does_not_fit_its_settings_is_refused(anchored: Stream, broken: Any) -> None:
    before = anchored.state
    with pytest.raises(StateError, match="another shape"):
        anchored.restore(broken(before))
    assert anchored.state is before


@pytest.mark.parametrize("field", ["history", "anchor"])
def test_bytes_with_values_that_are_not_finite_are_refused(anchored: Stream, field: str) -> None:
    state = anchored.state
    assert state.history is not None and state.anchor is not None
    bad = {"history": state.history * float("nan"), "anchor": replace(state.anchor, luma=state.anchor.luma / 0)}
    with pytest.raises(StateError, match="not finite"):
        StreamState.from_bytes(replace(state, **{field: bad[field]}).to_bytes())


def test_settings_and_states_from_before_lookback_still_load(engine: Engine) -> None:
    assert decode_config(CorrectionConfig, b'{"color_strength": 0.5}', "old") == CorrectionConfig(color_strength=0.5)
    stream = stepped(engine, 2)
    data = stream.state.to_bytes()
    for name in ("lookback", "drift_threshold", "renoise", "anchor"):
        assert f'\\"{name}\\"'.encode() in data
    old = _without_new_settings(data)
    assert StreamState.from_bytes(old).identity == stream.state.identity
    assert not {"history", "anchor_luma"} & set(stream.state.tensors())


def _without_new_settings(data: bytes) -> bytes:
    """The state as it was written before these settings were there."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    fields = json.loads(metadata["state"])
    fields["identity"]["config"]["correction"] = {"color_strength": 1.0}
    return save(load(data), {**metadata, "state": json.dumps(fields)})


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("lookback", 6, "0 to 5"),
        ("lookback", -1, "0 to 5"),
        ("drift_threshold", -0.1, "0 to 100"),
        ("drift_threshold", float("nan"), "0 to 100"),
        ("renoise", 1.1, "0 to 1"),
        ("anchor", "last", "reference or first_chunk"),
    ],
)
def test_settings_out_of_range_are_named(setting: str, value: object, allowed: str) -> None:
    with pytest.raises(ConfigError, match=setting) as caught:
        CorrectionConfig(**{setting: value})
    assert allowed in str(caught.value.hint)
