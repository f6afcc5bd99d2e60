"""Saved streams: what goes in comes out, what does not belong is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save
from tiny_bundle import SLICE, picture, speech, stream_config, tiny_bundle

from livetalk_core.audio import AudioRing
from livetalk_core.engine import Engine, StreamIdentity, StreamState
from livetalk_core.errors import StateError

pytestmark = pytest.mark.unit


def identity(**changes: Any) -> StreamIdentity:
    return StreamIdentity("revision", "float32", stream_config(**changes), "conditions")


def state(**changes: Any) -> StreamState:
    ring = AudioRing(np.arange(6, dtype=np.float32))
    fields = {
        "identity": identity(), "chunk": 3, "samples": 1000, "ended": False,
        "motion": torch.randn(1, 16, 2, 2, 2), "ring": ring,
    }  # fmt: skip
    return StreamState(**{**fields, **changes})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_hold_everything(dtype: torch.dtype) -> None:
    saved = state(motion=torch.randn(1, 16, 2, 2, 2).to(dtype), ended=True)
    loaded = StreamState.from_bytes(saved.to_bytes())
    assert torch.equal(loaded.motion, saved.motion) and loaded.motion.dtype == dtype
    assert np.array_equal(loaded.ring.samples, saved.ring.samples)
    assert replace(loaded, motion=None, ring=saved.ring) == replace(saved, motion=None)


def test_a_state_before_the_first_chunk_has_no_motion() -> None:
    saved = state(chunk=0, samples=0, motion=None)
    assert StreamState.from_bytes(saved.to_bytes()).motion is None


@given(st.binary(max_size=200))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        StreamState.from_bytes(data)


@given(st.data())
def test_cut_or_changed_states_never_raise_anything_else(data: st.DataObject) -> None:
    good = bytearray(state().to_bytes())
    position = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(StateError):
        StreamState.from_bytes(bytes(good[:position]))
    good[position] ^= 1 << data.draw(st.integers(0, 7))
    try:
        StreamState.from_bytes(bytes(good))
    except StateError as error:
        assert error.hint


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (state(chunk=-1), "chunk -1"),
        (state(samples=-5), "-5 samples"),
        (state(chunk=2**64), "chunk 18446744073709551616"),
        (state(motion=None), "motion latents before the first chunk, or none after it"),
        (state(motion=torch.full((1, 16, 2, 2, 2), float("nan"))), "not finite"),
        (state(ring=AudioRing(np.array([np.inf], np.float32))), "not finite"),
        (state(ring=AudioRing(np.zeros(3))), "float64"),
    ],
)
def test_values_that_no_stream_has(broken: StreamState, message: str) -> None:
    with pytest.raises(StateError, match=message):
        StreamState.from_bytes(broken.to_bytes())


def test_other_files_and_other_versions_are_named() -> None:
    with pytest.raises(StateError, match="not a saved stream"):
        StreamState.from_bytes(save({"weight": torch.zeros(2)}))
    with pytest.raises(StateError, match="version '2'"):
        StreamState.from_bytes(save({"ring": torch.zeros(2)}, {"format": "livetalk-state", "version": "2"}))


def test_a_huge_state_is_not_parsed() -> None:
    with pytest.raises(StateError, match="bytes long"):
        StreamState.from_bytes(bytes(65 * 2**20))


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (identity(seed=6), "seed = 6, the settings now say 5"),
        (identity(steps=4), "sampler.steps = 4"),
        (identity(prompt="Hello."), "prompt = 'Hello.'"),
        (replace(identity(), revision="other"), "another model"),
        (replace(identity(), dtype="bfloat16"), "another number format"),
        (replace(identity(), conditions="x"), "another picture"),
        (replace(identity(), clip="x"), "another sound"),
    ],
)
def test_what_differs_is_named(saved: StreamIdentity, message: str) -> None:
    with pytest.raises(StateError, match=message):
        saved.require_same(identity())


def test_the_engine_refuses_states_of_other_streams() -> None:
    engine = Engine(tiny_bundle())
    stream = engine.open_stream(stream_config(), picture())
    stream.step(speech(SLICE))
    saved = stream.state
    with pytest.raises(StateError, match="another picture"):
        engine.open_stream(stream_config(), picture(1), state=saved)
    with pytest.raises(StateError, match="seed"):
        engine.open_stream(stream_config(seed=1), picture(), state=saved)
    with pytest.raises(StateError, match="another model"):
        Engine(tiny_bundle(seed=1)).open_stream(stream_config(), picture(), state=saved)
    with pytest.raises(StateError, match="another shape"):
        cut = replace(saved, motion=saved.motion[..., :2])
        engine.open_stream(stream_config(), picture(), state=cut)


def test_whole_mode_refuses_another_sound() -> None:
    engine, config = Engine(tiny_bundle()), stream_config(mode="whole")
    clips = [engine.encode_whole(speech(2 * SLICE, seed), config) for seed in (0, 1)]
    stream = engine.open_stream(config, picture(), clip=clips[0])
    stream.step()
    with pytest.raises(StateError, match="another sound"):
        engine.open_stream(config, picture(), clip=clips[1], state=stream.state)
