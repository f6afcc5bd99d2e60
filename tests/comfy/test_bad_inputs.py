"""Bad input in every socket: refused before it runs where that can be known, a sentence on the node otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from comfy_graphs import ENCODE, IMAGE, LOAD, SAMPLER, SINK, SOUND, Prompt, avatar, changed, workflow
from conftest import Runner

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")

Refused = Callable[[Prompt], list[str]]


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        (LOAD, {"model": "../../etc"}, "There is no model '../../etc'. Choices: embedded"),
        (LOAD, {"model": "/etc/passwd"}, "There is no model"),
        (LOAD, {"device": "toaster"}, "There is no device 'toaster'. Choices: auto, cuda, cpu."),
        (LOAD, {"precision": "fp7"}, "There is no precision"),
        (LOAD, {"attention": "none"}, "There is no attention"),
        (LOAD, {"vae": "../vae.safetensors"}, "There is no vae"),
        (LOAD, {"gpus": 0}, "smaller than min"),
        (LOAD, {"gpus": 65}, "bigger than max"),
        (LOAD, {"gpus": "many"}, "Failed to convert"),
        (ENCODE, {"mode": "backwards"}, "There is no mode"),
        (ENCODE, {"loudness": 3.0}, "bigger than max"),
        (ENCODE, {"audio": [IMAGE, 0]}, "mismatch"),
        (ENCODE, {"model": None}, "Required input is missing"),
        (SAMPLER, {"seed": -1}, "smaller than min"),
        (SAMPLER, {"seed": 2**64}, "bigger than max"),
        (SAMPLER, {"prompt": "x" * 1_000_000}, "1,000,000 characters"),
        (SAMPLER, {"width": 5000}, "bigger than max"),
        (SAMPLER, {"steps": 1001}, "bigger than max"),
        (SAMPLER, {"image": [SOUND, 0]}, "mismatch"),
        (SINK, {"keep_frames": 0}, "smaller than min"),
        (SINK, {"decoding": "magic"}, "There is no decoding"),
        (SINK, {"stream": [ENCODE, 0]}, "mismatch"),
    ],
)
def test_what_can_be_known_is_refused_before_it_runs(
    refused: Refused, node: str, inputs: dict[str, Any], words: str
) -> None:
    sentences = refused(changed(avatar(), node, **inputs))
    assert any(words in sentence for sentence in sentences), sentences
    assert all(len(sentence) < 1000 for sentence in sentences)


PICTURE = {"batch": 1, "width": 64, "height": 64, "channels": 3, "nan": False}
SOUNDS = {"clips": 1, "channels": 1, "samples": 16_000, "rate": 16_000, "nan": False}
LATENT = {"batch": 1, "channels": 16, "length": 2, "height": 8, "width": 8}


def probe(graph: Prompt, kind: str, inputs: dict[str, Any], node: str, name: str) -> Prompt:
    """The graph with a probe's output at one input."""
    return {**changed(graph, node, **{name: ["probe", 0]}), "probe": {"class_type": kind, "inputs": inputs}}


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
    "half a model": (changed(avatar(), LOAD, model="half a model"), LOAD, "livetalk.json"),
    "one side": (changed(avatar(), SAMPLER, width=0), SAMPLER, "give both sides"),
    "odd size": (changed(avatar(), SAMPLER, width=100), SAMPLER, "near it: 96x64"),
    "odd chunk": (changed(avatar(), SAMPLER, chunk_frames=32), SAMPLER, "29 or 33"),
    "no cuda": (changed(avatar(), LOAD, device="cuda"), SINK, "cuda"),
    "nothing to decode": (changed(avatar(), SINK, stream=None), SINK, "nothing is connected"),
    "stream and samples": (probe(avatar(), "ProbeLatent", LATENT, SINK, "samples"), SINK, "both are connected"),
    "samples without model": (changed(probe(avatar(), "ProbeLatent", LATENT, SINK, "samples"), SINK, stream=None), SINK,
                              "connect a model"),
    "embedded VAE": (changed(probe(avatar(), "ProbeLatent", LATENT, SINK, "samples"), SINK, stream=None,
                             model=[LOAD, 0]), SINK, "latents of its own"),
    "four channels": (changed(probe(avatar(), "ProbeLatent", {**LATENT, "channels": 4}, SINK, "samples"), SINK,
                              stream=None, model=[LOAD, 0]), SINK, "[B,16,T,h,w]"),
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


def test_the_queue_goes_on_after_all_that(run: Runner) -> None:
    assert run(avatar()).status == "success"


def test_a_wrong_vae_is_refused_where_it_is_used(server: Any, run: Runner) -> None:
    (server.base / "models" / "vae" / "broken.safetensors").write_bytes(b"not a safetensors file")
    graph = {name: node for name, node in workflow("parallel_vae_decode").items() if name in ("8", "9")}
    graph = changed(probe(graph, "ProbeLatent", LATENT, "9", "samples"), "8", vae="broken.safetensors")
    outcome = run(graph)
    assert outcome.status == "error" and "broken.safetensors" in outcome.error["exception_message"]
