"""Graphs in a real ComfyUI: the same frames as the command line, what runs again, what is told on the way."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_graphs import (
    ENCODE,
    LOAD,
    ROOT,
    SAMPLER,
    SAVE,
    SINK,
    SOUND,
    Prompt,
    avatar,
    changed,
    digests,
    report_of,
    with_report,
    workflow,
)
from conftest import RANDOM_VAE, SMALL_14B, Runner

from livetalk_core.media import probe_video, read_video
from nodes.phases import PHASES

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")
ASSETS = ROOT / "livetalk_core" / "assets"


def saved_file(server: Any, outcome: Any, node: str = SAVE) -> Path:
    """What SaveVideo wrote."""
    shown = outcome.outputs[node]["images"][0]
    path: Path = server.base / shown["type"] / shown["subfolder"] / shown["filename"]
    return path


def command_line(folder: Path, *options: object) -> dict[str, Any]:
    """The report of `livetalk generate`, run by the host's Python."""
    from tools.comfy_host import host_folder

    python = host_folder() / "venv" / "bin" / "python"
    command = [
        python, "-m", "livetalk_core.cli", "generate", "--audio", ASSETS / "demo.wav", "--image",
        ASSETS / "portrait.png", "--world-size", 1, "--out", folder / "x.mp4", "--report", folder / "x.json", *options,
    ]  # fmt: skip
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((folder / "x.json").read_text())
    return report


def test_frames_are_those_of_the_command_line(server: Any, run: Runner, tmp_path: Path) -> None:
    outcome = run(with_report(changed(workflow("talking_avatar"), SAMPLER, max_seconds=2.0)))
    assert outcome.status == "success", outcome.error
    ours, theirs = report_of(outcome), command_line(tmp_path, "--max-seconds", 2)
    assert digests(ours) == digests(theirs) and len(ours["chunks"]) == 2
    for name in ("seed", "width", "height", "steps", "shift", "mode", "revision", "dtype", "frames", "color_strength"):
        assert ours[name] == theirs[name], name
    assert [event["sha256"] for event in outcome.told("livetalk.chunk")] == digests(theirs)
    info = probe_video(saved_file(server, outcome))
    assert (info.width, info.height, info.frames) == (128, 128, 50)
    assert info.audio_seconds == pytest.approx(info.seconds, abs=0.04)


def test_settings_reach_the_engine(run: Runner, tmp_path: Path) -> None:
    prompt = changed(avatar(1.5), SAMPLER, seed=7, width=64, height=96, steps=2, shift=3.0, chunk_frames=17)
    ours = report_of(run(changed(prompt, ENCODE, mode="whole")))
    assert (ours["seed"], ours["width"], ours["height"], ours["steps"], ours["shift"]) == (7, 64, 96, 2, 3.0)
    assert (ours["mode"], ours["chunk_frames"]) == ("whole", 17)
    plain = changed(prompt, SAMPLER, chunk_frames=0)
    options = ("--max-seconds", 1.5, "--seed", 7, "--size", "64x96", "--steps", 2, "--shift", 3.0)
    assert digests(report_of(run(plain))) == digests(command_line(tmp_path, *options))


def test_a_second_run_is_cached_and_a_change_runs_only_what_it_affects(run: Runner) -> None:
    first = run(avatar(1.01))
    assert {SAMPLER, SINK, SAVE} <= first.ran()
    assert not run(avatar(1.01)).ran() & {LOAD, SOUND, ENCODE, SAMPLER, SINK, SAVE}
    assert run(changed(avatar(1.01), SAMPLER, seed=3)).ran() >= {SAMPLER, SINK, SAVE}
    assert not run(changed(avatar(1.01), SAMPLER, seed=4)).ran() & {LOAD, SOUND, ENCODE}
    louder = changed(avatar(1.01), ENCODE, loudness=-20.0)
    heard = run(louder)
    assert LOAD not in heard.ran() and {ENCODE, SAMPLER, SINK} <= heard.ran()
    named = run(changed(louder, SAVE, filename_prefix="livetalk/other"))
    assert SINK not in named.ran() and SAVE in named.ran()


def test_what_is_told_on_the_way(run: Runner) -> None:
    outcome = run(changed(avatar(2.0), SAMPLER, seed=21))
    phases = {data["phase"]: data["text"] for data in outcome.told("livetalk.phase")}
    assert {"checking", "generating", "finishing"} <= phases.keys() and phases.items() <= PHASES.items()
    assert {data["node"] for data in outcome.told("livetalk.phase")} == {SINK}
    values = [data["value"] for data in outcome.told("progress")]
    assert values == sorted(values) and len(values) == 6 and values[-1] == 1000
    assert outcome.told("preview_with_metadata")
    stream, *_ = outcome.told("livetalk.stream")
    assert len(bytes.fromhex(stream["stream"])) == 16 and stream["node"] == SINK
    chunks = outcome.told("livetalk.chunk")
    assert {chunk["stream"] for chunk in chunks} == {stream["stream"]}
    assert [(chunk["index"], chunk["first_pts"], chunk["frames"]) for chunk in chunks] == [(0, 0.0, 28), (1, 1.12, 22)]
    finished = outcome.told("progress_state")[-1]["nodes"]
    assert all(node["state"] == "finished" for node in finished.values())


def test_events_say_where_they_come_from_and_nobody_else_hears_them(server: Any, run: Runner) -> None:
    """Who knows the name of a live stream may watch it."""
    outcome = run(changed(avatar(0.2), SAMPLER, seed=23))
    told = [data for _, name, data in outcome.events if name.startswith("livetalk.")]
    assert {(data["prompt_id"], data["workflow"]) for data in told} == {(outcome.prompt, None)}
    own, unheard = asyncio.run(overheard(server.url, changed(avatar(0.2), SAMPLER, seed=24)))
    assert not unheard and not own


async def overheard(url: str, prompt: Prompt) -> tuple[list[str], list[str]]:
    """Events of ours that a client hears of a prompt queued under another name, and under none."""
    import aiohttp

    heard: list[list[str]] = []
    async with aiohttp.ClientSession(url) as http, http.ws_connect("/ws?clientId=bystander", max_msg_size=0) as socket:
        for who in ({"client_id": "somebody"}, {}):
            graph = changed(prompt, SAMPLER, seed=25 + len(heard))
            async with http.post("/prompt", json={"prompt": graph, **who}) as answer:
                queued = (await answer.json())["prompt_id"]
            names: list[str] = []
            heard.append(names)
            async for message in socket:
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = message.json()
                names += [event["type"]] if event["type"].startswith("livetalk.") else []
                # To everybody, when the queue has changed.
                if event["type"] == "status" and await done(http, queued):
                    break
    return heard[0], heard[1]


async def done(http: Any, prompt: str) -> bool:
    """Whether a prompt is in the history, with success."""
    async with http.get(f"/history/{prompt}") as answer:
        entry = (await answer.json()).get(prompt)
    return entry is not None and entry["status"]["status_str"] == "success"


def test_the_last_frames_come_out_as_images(server: Any, run: Runner) -> None:
    prompt = changed(avatar(1.0), SINK, keep_frames=5)
    prompt["images"] = {"class_type": "SaveImage", "inputs": {"images": [SINK, 1], "filename_prefix": "last"}}
    outcome = run(prompt)
    from PIL import Image

    files = [server.base / "output" / shown["filename"] for shown in outcome.outputs["images"]["images"]]
    sizes = set()
    for file in files:
        with Image.open(file) as picture:
            sizes.add(picture.size)
    assert len(files) == 5 and sizes == {(64, 64)}


def test_correction_and_lookback_zero(run: Runner) -> None:
    correct = {
        "class_type": "RetrospectiveCorrect",
        "inputs": {"stream": [SAMPLER, 0], "color_strength": -1.0, "lookback": 0, "drift_threshold": 1.0,
                   "renoise": 0.6, "anchor": "reference"},
    }  # fmt: skip
    plain = report_of(run(avatar(2.5)))
    prompt = {**changed(avatar(2.5), SINK, stream=["correct", 0]), "correct": correct}
    assert digests(report_of(run(prompt))) == digests(plain)
    stronger = report_of(run(changed(prompt, "correct", color_strength=1.0)))
    assert digests(stronger) != digests(plain) and stronger["color_strength"] == 1.0


def test_features_of_core_nodes_take_the_place_of_ours(run: Runner) -> None:
    prompt = changed(avatar(1.0), LOAD, model=SMALL_14B, precision="fp32")
    prompt = changed(prompt, SAMPLER, width=64, height=64, prompt="hello", steps=1)
    features = {"tokens": 8, "width": 16, "image_tokens": 17, "image_width": 32, "seed": 1}
    given = {**prompt, "features": {"class_type": "ProbeFeatures", "inputs": features}}
    own = digests(report_of(run(prompt)))
    text = digests(report_of(run(changed(given, SAMPLER, conditioning=["features", 0]))))
    image = digests(report_of(run(changed(given, SAMPLER, clip_vision_output=["features", 1]))))
    assert len({tuple(own), tuple(text), tuple(image)}) == 3
    again = report_of(run(changed(given, SAMPLER, conditioning=["features", 0], prompt="another")))
    assert digests(again) == text


def test_several_ranks(run: Runner) -> None:
    report = report_of(run(changed(avatar(1.0), LOAD, gpus=2)))
    assert report["world_size"] == 2 and len(set(report["worker_pids"])) == 2 and report["frames"] == 25


@pytest.mark.parametrize("gpus", [1, 2])
def test_latents_are_decoded_as_the_host_does(server: Any, run: Runner, gpus: int) -> None:
    latent = {"batch": 1, "channels": 16, "length": 6, "height": 8, "width": 12}
    prompt = workflow("parallel_vae_decode")
    kept = {name: prompt[name] for name in ("8", "9", "10")}
    graph = {
        **changed(changed(kept, "9", samples=["latent", 0], keep_frames=21), "8", precision="fp32", gpus=gpus),
        "latent": {"class_type": "ProbeLatent", "inputs": latent},
        "vae": {"class_type": "VAELoader", "inputs": {"vae_name": RANDOM_VAE}},
        "host": {"class_type": "VAEDecode", "inputs": {"samples": ["latent", 0], "vae": ["vae", 0]}},
        "theirs": {"class_type": "SaveImage", "inputs": {"images": ["host", 0], "filename_prefix": "theirs"}},
        "ours": {"class_type": "SaveImage", "inputs": {"images": ["9", 1], "filename_prefix": "ours"}},
    }
    outcome = run(graph)
    if outcome.error.get("node_type") == "VAELoader":
        pytest.skip(f"this ComfyUI cannot load a small VAE: {outcome.error['exception_message']}")
    assert outcome.status == "success", outcome.error
    from PIL import Image

    pixels = {
        name: np.stack([
            np.asarray(Image.open(server.base / "output" / shown["filename"])).astype(int)
            for shown in outcome.outputs[name]["images"]
        ])
        for name in ("ours", "theirs")
    }  # fmt: skip
    assert pixels["ours"].shape == pixels["theirs"].shape == (21, 64, 96, 3)
    # The host rounds down where we round to the nearest.
    difference = pixels["ours"] - pixels["theirs"]
    assert difference.min() >= -1 and difference.max() <= 1
    video = server.base / "temp" / "livetalk" / outcome.outputs["9"]["livetalk_video"][0]["filename"]
    assert sum(1 for _ in read_video(video)) == 21
    assert probe_video(saved_file(server, outcome, "10")).frames == 21
