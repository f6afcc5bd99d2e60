"""Widgets to recipes: defaults, refusals, the list of models."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
import torch

from livetalk_core import config
from livetalk_core.audio import MAX_WHOLE_SECONDS
from livetalk_core.daemon.daemon_config import MAX_WORLD
from livetalk_core.errors import AudioError, CheckpointError, ConfigError
from nodes import limits, planning
from nodes.model_list import find_model_folder, list_models, model_stamp
from nodes.recipes import AudioRecipe, ModelRecipe, StreamRecipe
from nodes.requests import video_request

pytestmark = pytest.mark.unit
DAEMONS = sys.platform.startswith("linux")
EMBEDDED = ModelRecipe("embedded", None)
AUDIO = AudioRecipe(np.zeros(16_000, np.float32), 16_000)
IMAGE = torch.full((1, 64, 64, 3), 0.5)
DEFAULTS: dict[str, Any] = {
    "prompt": "", "seed": 9999, "size": (0, 0), "steps": 0, "shift": 0.0, "chunk": (0, 0), "max_seconds": 0.0,
}  # fmt: skip


def plan(**changes: Any) -> StreamRecipe:
    return planning.plan_stream(EMBEDDED, AUDIO, IMAGE, **{**DEFAULTS, **changes})


def test_limits_are_those_of_the_engine() -> None:
    assert limits.MAX_SEED == config.MAX_SEED and limits.MAX_SIDE == config.MAX_SIDE
    assert limits.MAX_PROMPT_CHARACTERS == config.MAX_PROMPT_CHARACTERS and limits.MAX_GPUS == MAX_WORLD
    assert limits.MAX_WHOLE_SECONDS == MAX_WHOLE_SECONDS and get_args(config.Anchor) == limits.ANCHORS
    assert config.MAX_LOOKBACK == limits.MAX_LOOKBACK
    config.ChunkGeometry(frames=limits.MAX_CHUNK_FRAMES, window_seconds=120)
    with pytest.raises(ConfigError):
        config.ChunkGeometry(frames=limits.MAX_CHUNK_FRAMES + 4, window_seconds=120)


def test_zeros_leave_everything_to_the_model(tmp_path: Path) -> None:
    request = video_request(plan(), tmp_path / "out.mp4", lambda: False)
    left = (request.size, request.steps, request.shift, request.geometry, request.correction, request.max_seconds)
    assert left == (None,) * 6
    assert request.seed == 9999 and request.model is None and request.world_size == (1 if DAEMONS else None)


def test_one_side_follows_from_the_other_and_the_picture() -> None:
    wide = torch.full((1, 60, 120, 3), 0.5)
    for asked, made in (((128, 0), (128, 64)), ((0, 96), (192, 96)), ((16, 0), (16, 16)), ((0, 4096), (4096, 4096))):
        assert planning.plan_stream(EMBEDDED, AUDIO, wide, **{**DEFAULTS, "size": asked}).size == made


def test_given_values_arrive(tmp_path: Path) -> None:
    stream = plan(size=(96, 64), steps=2, shift=3.0, chunk=(17, 0), max_seconds=1.5, seed=2**64 - 1, prompt="hello")
    corrected = planning.plan_correction(stream, 0.25, lookback=3, anchor="first_chunk")
    request = video_request(corrected, tmp_path / "out.mp4", lambda: False)
    assert (request.size, request.steps, request.shift, request.max_seconds) == ((96, 64), 2, 3.0, 1.5)
    assert request.geometry is not None and (request.geometry.frames, request.geometry.motion_frames) == (17, 5)
    defaults = planning.model_defaults(stream.model).correction
    given = {"color_strength": 0.25, "lookback": 3, "anchor": "first_chunk"}
    assert request.correction == msgspec.structs.replace(defaults, **given)
    assert request.seed == 2**64 - 1 and request.prompt == "hello"


def test_one_gpu_needs_no_daemon_elsewhere_and_several_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert video_request(plan(), tmp_path / "out.mp4", lambda: False).world_size is None
    stream = replace(plan(), model=replace(EMBEDDED, gpus=2))
    with pytest.raises(ConfigError, match="Linux"):
        video_request(stream, tmp_path / "out.mp4", lambda: False)


def test_a_negative_strength_is_the_models_own() -> None:
    own = planning.model_defaults(EMBEDDED).correction
    assert planning.plan_correction(plan(), -1.0).correction == own
    assert plan().correction is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": (100, 64)}, "96 or 112"),
        ({"size": (64, 8)}, "for instance 16."),
        ({"size": (64, 5000)}, "height is 5000"),
        ({"prompt": "x" * 1_000_000}, "1,000,000 characters"),
        ({"chunk": (32, 0)}, "29 or 33"),
        ({"chunk": (0, 6)}, "5 or 9"),
        ({"chunk": (5, 5)}, "below chunk_frames"),
        ({"chunk": (0, 37)}, "motion_frames is 37"),
    ],
)
def test_what_cannot_be_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(**changes)
    assert words in caught.value.message


def test_whole_mode_takes_two_minutes(tmp_path: Path) -> None:
    audio = {"waveform": torch.zeros(1, 1, 121 * 16_000), "sample_rate": 16_000}
    with pytest.raises(AudioError, match="stream"):
        planning.plan_audio(EMBEDDED, audio, -23.0, "whole", tmp_path)
    assert planning.plan_audio(EMBEDDED, audio, -23.0, "stream", tmp_path).seconds == 121
    with pytest.raises(ConfigError, match="LUFS"):
        planning.plan_audio(EMBEDDED, audio, float("nan"), "stream", tmp_path)


def test_choices_are_compared_and_shown_short() -> None:
    assert limits.choice_problem({"device": "cuda"}, {"device": ["auto", "cuda"], "vae": []}) == ""
    assert limits.choice_problem({"device": None}, {"device": ["auto"]})
    problem = limits.choice_problem({"model": "../" * 1000}, {"model": ["embedded"]})
    assert problem.endswith("Choices: embedded.") and len(problem) < 200


def test_a_link_is_nothing_before_the_graph_runs() -> None:
    assert limits.socket_problem({"model": None}) == ""
    assert limits.number_problem({"shift": 1.0, "prompt": "a"}) == "" and limits.number_problem({"shift": float("nan")})
    assert "takes a link" in limits.socket_problem({"model": "embedded"})
    assert limits.size_problem(None, 96) == "" and limits.size_problem(None, 100)
    assert limits.range_problem({"shift": (None, 0, 1)}) == ""
    for value in (float("nan"), 2, -1, "a", {}):
        assert limits.range_problem({"shift": (value, 0, 1)})  # type: ignore[dict-item]


@pytest.mark.parametrize("value", [None, "a", 1.5, {}, AUDIO])
def test_sockets_hold_what_our_nodes_put_there(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Load LiveTalk Model"):
        planning.plan_audio(value, {}, -23.0, "stream", tmp_path)
    with pytest.raises(ConfigError, match="Stream Chunk Sampler"):
        planning.plan_correction(value, -1.0)
    with pytest.raises(ConfigError, match="Load LiveTalk Model"):
        planning.plan_latents({}, value, 16, False)


def test_models_are_listed_by_name_and_never_by_path(tmp_path: Path) -> None:
    for root, name, file in (("a", "Zoe", "livetalk.json"), ("a", "ava", "diffusion_pytorch_model.safetensors"),
                             ("b", "ava", "livetalk.json"), ("b", "wav2vec2", "config.json")):  # fmt: skip
        folder = tmp_path / root / name
        folder.mkdir(parents=True)
        (folder / file).write_text("{}")
    roots = [tmp_path / "a", tmp_path / "b", tmp_path / "absent"]
    assert list_models(roots) == ["embedded", "ava", "Zoe"]
    assert find_model_folder("ava", roots) == tmp_path / "a" / "ava"
    assert find_model_folder("embedded", roots) is None
    for trick in ("../a/ava", str(tmp_path / "a" / "ava"), "", "wav2vec2"):
        with pytest.raises(KeyError):
            find_model_folder(trick, roots)


def test_the_stamp_follows_the_files(tmp_path: Path) -> None:
    (tmp_path / "livetalk.json").write_text("{}")
    before = model_stamp(tmp_path)
    assert model_stamp(tmp_path) == before != model_stamp(None)
    (tmp_path / "livetalk.json").write_text("{ }")
    assert model_stamp(tmp_path) != before


def test_an_incomplete_model_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="config"):
        planning.model_defaults(ModelRecipe("half", str(tmp_path)))
