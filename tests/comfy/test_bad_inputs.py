"""Bad input in every socket: refused before it runs where that can be known, a sentence on the node otherwise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from comfy_graphs import ENCODE, IMAGE, LOAD, SAMPLER, SINK, SOUND, Prompt, avatar, changed, workflow
from conftest import Runner

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")

Refused = Callable[[Prompt], list[str]]


CORRECT = "correct"


def corrected(seconds: float = 1.0) -> Prompt:
    """The talking avatar with all its nodes, and a correction."""
    settings = {"color_strength": -1.0, "lookback": 1, "drift_threshold": 1.0, "renoise": 0.625, "anchor": "reference"}
    node = {"class_type": "RetrospectiveCorrect", "inputs": {"stream": [SAMPLER, 0], **settings}}
    return {**changed(avatar(seconds), SINK, stream=[CORRECT, 0]), CORRECT: node}


PICTURE = {"batch": 1, "width": 64, "height": 64, "channels": 3, "nan": False}
SOUNDS = {"clips": 1, "channels": 1, "samples": 16_000, "rate": 16_000, "nan": False}
FEATURES = {"tokens": 8, "width": 7, "image_tokens": 17, "image_width": 32, "seed": 1}
LATENT = {"batch": 1, "channels": 16, "length": 2, "height": 8, "width": 8}


def probe(graph: Prompt, kind: str, inputs: dict[str, Any], node: str, name: str) -> Prompt:
    """The graph with a probe's output at one input."""
    return {**changed(graph, node, **{name: ["probe", 0]}), "probe": {"class_type": kind, "inputs": inputs}}


SAMPLES = changed(probe(avatar(), "ProbeLatent", LATENT, SINK, "samples"), SINK, stream=None)


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        (LOAD, {"model": "../../etc"}, "There is no model '../../etc'. Choices: embedded, half a model"),
        (LOAD, {"model": "/etc/passwd"}, "There is no model"),
        (LOAD, {"model": "C:\\models\\x"}, "There is no model"),
        (LOAD, {"model": "x" * 1_000_000}, "There is no model"),
        (LOAD, {"vae": "../vae.safetensors"}, "There is no vae"),
        (LOAD, {"gpus": 0}, "smaller than min"),
        (LOAD, {"gpus": 65}, "bigger than max"),
        (LOAD, {"gpus": "many"}, "Failed to convert"),
        (ENCODE, {"loudness": 3.0}, "bigger than max"),
        (ENCODE, {"audio": [IMAGE, 0]}, "mismatch"),
        (ENCODE, {"model": None}, "Required input is missing"),
        (SOUND, {"audio": "../../etc/passwd"}, "Invalid audio file"),
        (IMAGE, {"image": "../../etc/passwd"}, "Invalid image file"),
        (SAMPLER, {"seed": -1}, "smaller than min"),
        (SAMPLER, {"seed": 2**64}, "bigger than max"),
        (SAMPLER, {"prompt": "x" * 1_000_000}, "1,000,000 characters"),
        (SAMPLER, {"width": 5000}, "width is 5000; it has to be from 0 to 4,096"),
        (ENCODE, {"mode": "backwards"}, "There is no mode"),
        (SAMPLER, {"chunk_frames": 32}, "29 or 33"),
        (SAMPLER, {"chunk_frames": 17, "motion_frames": 17}, "below chunk_frames, 17"),
        (CORRECT, {"anchor": "ship"}, "There is no anchor"),
        (SAMPLER, {"height": 100}, "height is 100: it has to be a multiple of 16, for instance 96 or 112"),
        (SAMPLER, {"steps": 1001}, "bigger than max"),
        (SAMPLER, {"max_seconds": float("inf")}, "bigger than max"),
        (SAMPLER, {"image": [SOUND, 0]}, "mismatch"),
        (SAMPLER, {"image": [[0.5]]}, "Bad linked input"),
        (SAMPLER, {"clip_vision_output": [IMAGE, 0]}, "mismatch"),
        (CORRECT, {"renoise": 1.5}, "bigger than max"),
        (CORRECT, {"lookback": 6}, "bigger than max"),
        (SINK, {"keep_frames": 0}, "smaller than min"),
        (SINK, {"decoding": "magic"}, "There is no decoding"),
        (SINK, {"stream": [ENCODE, 0]}, "mismatch"),
        (SINK, {"stream": None}, "nothing is connected"),
        (LOAD, {"device": "toaster"}, "There is no device 'toaster'. Choices: auto, cuda, cpu."),
        (LOAD, {"precision": "fp7"}, "There is no precision"),
        (LOAD, {"attention": "none"}, "There is no attention"),
        (LOAD, {"offload": "everything"}, "There is no offload"),
        (ENCODE, {"loudness": float("nan")}, "loudness is nan"),
        (ENCODE, {"audio": "../../speech.wav"}, "audio is '../../speech.wav', a value; it takes a link"),
        (ENCODE, {"model": "embedded"}, "model is 'embedded', a value"),
        (SAMPLER, {"shift": float("nan")}, "shift is nan"),
        (SAMPLER, {"conditioning": "a happy person"}, "conditioning is 'a happy person', a value"),
        (CORRECT, {"color_strength": float("nan")}, "color_strength is nan"),
        (SINK, {"samples": ["nowhere", 0]}, "node: 'nowhere'"),  # "inner" or not, as the host's set has it
    ],
)
def test_what_can_be_known_is_refused_before_it_runs(
    refused: Refused, node: str, inputs: dict[str, Any], words: str
) -> None:
    sentences = refused(changed(corrected(), node, **inputs))
    assert sum(words in sentence for sentence in sentences) == 1, sentences
    assert all(len(sentence) < 1000 for sentence in sentences)


def test_a_model_that_is_not_there_is_said_once_and_where_it_belongs(server: Any, refused: Refused) -> None:
    (said,) = refused(changed(avatar(), LOAD, model="SoulX-FlashTalk-15B"))
    assert f"folders in {server.base / 'models' / 'livetalk'}" in said


def test_links_that_do_not_go_together_are_refused(refused: Refused) -> None:
    both = probe(avatar(), "ProbeLatent", LATENT, SINK, "samples")
    assert any("both are connected" in sentence for sentence in refused(both))
    assert any("connect a model" in sentence for sentence in refused(SAMPLES))


HOSTILE = ("", None, -1.5, [], ["1"], [LOAD, 7], {"a": 1}, 2**70, "../../a\0b")
SWITCHES = ("compile", "live_view")
"""ComfyUI takes any value as on or off."""


@pytest.mark.parametrize("node", [LOAD, ENCODE, SAMPLER, CORRECT, SINK])
def test_any_value_in_any_socket_works_or_is_answered_with_a_sentence(run: Runner, node: str) -> None:
    from tools.comfy_host.client import RefusedError

    graph = corrected(0.2)
    for name in [name for name in graph[node]["inputs"] if name not in SWITCHES]:
        for value in HOSTILE:
            tried = copy.deepcopy(graph)
            tried[node]["inputs"][name] = value
            try:
                outcome = run(tried)
            except RefusedError:
                continue
            if outcome.status != "success":
                kind = outcome.error["exception_type"]
                where = (node, name, value, outcome.error["exception_message"])
                assert kind.startswith("livetalk_core.errors.") or kind.endswith("InputError"), (kind, *where)


CASES: dict[str, tuple[Prompt, str, str]] = {
    "no picture": (probe(avatar(), "ProbeImage", {**PICTURE, "batch": 0}, SAMPLER, "image"), SAMPLER, "0 picture(s)"),
    "empty picture": (probe(avatar(), "ProbeImage", {**PICTURE, "width": 0, "height": 0}, SAMPLER, "image"), SAMPLER,
                      "0x0 pixels"),
    "tiny picture": (probe(avatar(), "ProbeImage", {**PICTURE, "width": 9}, SAMPLER, "image"), SAMPLER, "at least 32"),
    "odd picture": (probe(avatar(), "ProbeImage", {**PICTURE, "channels": 7}, SAMPLER, "image"), SAMPLER, "shape"),
    "picture of NaN": (probe(avatar(), "ProbeImage", {**PICTURE, "nan": True}, SAMPLER, "image"), SAMPLER, "numbers"),
    "empty sound": (probe(avatar(), "ProbeAudio", {**SOUNDS, "samples": 0}, ENCODE, "audio"), ENCODE, "empty"),
    "no channel": (probe(avatar(), "ProbeAudio", {**SOUNDS, "channels": 0}, ENCODE, "audio"), ENCODE, "empty"),
    "no rate": (probe(avatar(), "ProbeAudio", {**SOUNDS, "rate": 0}, ENCODE, "audio"), ENCODE, "rate"),
    "two clips": (probe(avatar(), "ProbeAudio", {**SOUNDS, "clips": 2}, ENCODE, "audio"), ENCODE, "2 clips"),
    "sound of NaN": (probe(avatar(), "ProbeAudio", {**SOUNDS, "nan": True}, ENCODE, "audio"), ENCODE, "not a number"),
    "long and whole": (changed(probe(avatar(), "ProbeAudio", {**SOUNDS, "samples": 130 * 16_000}, ENCODE, "audio"),
                               ENCODE, mode="whole"), ENCODE, "Choose mode 'stream'"),
    "features of another model": (probe(avatar(), "ProbeFeatures", FEATURES, SAMPLER, "conditioning"), SINK,
                                  "context has the shape"),
    "half a model": (changed(avatar(), LOAD, model="half a model"), LOAD, "livetalk.json"),
    "no cuda": (changed(avatar(), LOAD, device="cuda"), SINK, "cuda"),
    "embedded VAE": (changed(SAMPLES, SINK, model=[LOAD, 0]), SINK, "latents of its own"),
    "four channels": (changed(probe(SAMPLES, "ProbeLatent", {**LATENT, "channels": 4}, SINK, "samples"), SINK,
                              model=[LOAD, 0]), SINK, "[B,16,T,h,w]"),
    "no latents": (changed(probe(SAMPLES, "ProbeLatent", {**LATENT, "length": 0}, SINK, "samples"), SINK,
                           model=[LOAD, 0]), SINK, "empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_rest_is_a_sentence_on_the_node(run: Runner, case: str) -> None:
    import torch

    graph, node, words = CASES[case]
    if case == "no cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    outcome = run(graph)
    assert outcome.status == "error" and outcome.error["node_id"] == node, outcome.error
    message = outcome.error["exception_message"]
    assert words in message and len(message) < 2000 and "Traceback" not in message
    assert run(avatar(0.2)).status == "success"


def test_a_wrong_vae_is_refused_where_it_is_used(server: Any, run: Runner) -> None:
    (server.base / "models" / "vae" / "broken.safetensors").write_bytes(b"not a safetensors file")
    graph = {name: node for name, node in workflow("parallel_vae_decode").items() if name in ("8", "9")}
    graph = changed(probe(graph, "ProbeLatent", LATENT, "9", "samples"), "8", vae="broken.safetensors")
    outcome = run(graph)
    assert outcome.status == "error" and "broken.safetensors" in outcome.error["exception_message"]
