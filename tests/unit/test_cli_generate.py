"""`livetalk generate`: the same frames however they are asked for, and a report that is true."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_tools import RATE, Outcome, livetalk, speech, write_wav
from PIL import Image

from livetalk_core.media import frame_digest, open_sound, probe_video, read_video

pytestmark = pytest.mark.unit
SECONDS = 0.5
FRAMES = 13  # The nearest whole number.
BEGUN = 0.32  # Two chunks of the tiny model: a state from which the rest of the same sound can follow.
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wav(tmp_path_factory.mktemp("sound") / "talk.wav", speech(SECONDS))


@pytest.fixture
def generate(tiny_model_folder: Path, talk: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    def run(*more: object, audio: object = talk, out: str = "out.mkv", stdin: bytes | None = None) -> Outcome:
        arguments = ["--audio", audio, "--out", tmp_path / out, "--model", tiny_model_folder, "--dtype", "fp32"]
        steps = () if "--resume" in more else ("--size", "32x32", "--steps", 1)
        return livetalk("generate", *arguments, *steps, *more, "--json", stdin=stdin)

    return run


@pytest.fixture(scope="module")
def begun(tiny_model_folder: Path, talk: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Report of a stream that was begun, with seed 5; its state and video lie in `folder`."""
    folder = tmp_path_factory.mktemp("begun")
    report = livetalk(
        "generate", "--audio", talk, "--out", folder / "begin.mkv", "--model", tiny_model_folder, "--dtype", "fp32",
        "--size", "32x32", "--steps", 1, "--seed", 5, "--max-seconds", BEGUN, "--state", folder / "s.state", "--json",
    ).json  # fmt: skip
    return {**report, "folder": folder}


def digests(report: dict) -> list[str]:
    return [chunk["sha256"] for chunk in report["chunks"]]


def test_looking_back_reaches_the_engine_and_the_report(generate) -> None:
    options = ("--lookback", 2, "--drift-threshold", 0, "--renoise", 0.5, "--anchor", "first_chunk")
    report = generate(*options).json
    assert report["lookback"] == 2
    first, *rest = (chunk["stats"] for chunk in report["chunks"])
    assert first["drift"] == pytest.approx(0, abs=1e-3), "the first chunk is the anchor"
    assert rest and all(stats["drift"] > 0 for stats in rest)
    assert rest[0]["reanchored"] == 1 and "reanchor" in report["stages"]
    assert digests(report) != digests(generate().json)


def test_report_tells_what_the_file_holds(generate, tmp_path: Path) -> None:
    outcome = generate("--report", tmp_path / "r.json", "--seed", 7, "--shift", 3)
    report = outcome.json
    assert outcome.code == 0
    assert json.loads((tmp_path / "r.json").read_text()) == report
    frames = np.stack(list(read_video(tmp_path / "out.mkv")))
    info = probe_video(tmp_path / "out.mkv")
    assert (report["width"], report["height"], report["fps"]) == (32, 32, 25)
    assert len(frames) == report["frames"] == FRAMES
    assert abs(info.audio_seconds - SECONDS) <= 0.04
    assert report["world_size"] == 1 and report["worker_pids"] == [os.getpid()]
    assert (report["model"], report["seed"], report["steps"], report["status"]) == ("tiny-0", 7, 1, "complete")
    assert report["dtype"] == "float32" and report["device"] == "cpu"
    assert report["audio_seconds"] == pytest.approx(SECONDS)
    for stage in ("audio", "denoise", "decode", "correct", "encode", "write", "chunk"):
        assert report["stages"][stage]["count"] == len(report["chunks"])
        assert report["stages"][stage]["p95"] >= report["stages"][stage]["p50"] >= 0
    position = 0
    for index, chunk in enumerate(report["chunks"]):
        part = frames[position : position + chunk["frames"]]
        assert (chunk["index"], chunk["first_pts"]) == (index, pytest.approx(position / 25))
        assert chunk["sha256"] == frame_digest(part)
        assert chunk["seconds"] == pytest.approx(sum(chunk["stages"].values()))
        position += chunk["frames"]
    assert position == len(frames)


def test_same_seed_same_frames_and_another_seed_others(generate) -> None:
    first, again, other = (generate("--seed", seed, "--max-seconds", 0.2).json for seed in (3, 3, 4))
    assert digests(first) == digests(again)
    assert not set(digests(first)) & set(digests(other))


def test_sound_from_a_pipe_gives_the_same_frames_and_sound(generate, talk: Path, tmp_path: Path) -> None:
    samples = speech(SECONDS)
    from_file = generate()
    piped = generate(audio="-", out="pipe.mkv", stdin=samples.astype("<i2").tobytes())
    assert digests(piped.json) == digests(from_file.json)
    with open_sound(tmp_path / "pipe.mkv") as sound:
        heard = sound.read(10**6)
    assert len(heard) == FRAMES * RATE // 25
    assert np.array_equal(heard[: len(samples)], samples.astype(np.float32) / 32768)
    assert not heard[len(samples) :].any()


def test_resumed_stream_continues_bit_for_bit(generate, begun: dict, tmp_path: Path) -> None:
    whole = generate("--seed", 5).json
    # Size, seed and steps are remembered.
    rest = generate("--resume", begun["folder"] / "s.state", out="rest.mkv").json
    assert len(begun["chunks"]) == 2 and rest["resumed_from"] == 2 and rest["seed"] == 5
    assert digests(begun) + digests(rest) == digests(whole)
    assert rest["chunks"][0]["first_pts"] == pytest.approx(BEGUN)
    parts = (begun["folder"] / "begin.mkv", tmp_path / "rest.mkv")
    together = [frame for part in parts for frame in read_video(part)]
    assert frame_digest(np.stack(together)) == frame_digest(np.stack(list(read_video(tmp_path / "out.mkv"))))
    sounds = []
    for path in (*parts, tmp_path / "out.mkv"):
        with open_sound(path) as sound:
            sounds.append(sound.read(10**6))
    assert np.array_equal(np.concatenate(sounds[:2]), sounds[2])


def test_whole_mode_makes_the_same_length_and_says_when_it_is_over(generate, tmp_path: Path) -> None:
    state = tmp_path / "s.state"
    whole = generate("--mode", "whole", "--max-seconds", 0.3, "--state", state).json
    assert whole["mode"] == "whole" and whole["frames"] == 8
    ended = generate("--resume", state, out="rest.mkv")
    assert ended.code == 2 and "at its end" in ended.json["error"]["message"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("--seed", "6"), "seed"),
        (("--size", "48x48"), "width"),
        (("--steps", "3"), "steps"),
        (("--dtype", "bf16"), "number format"),
        (("--audio", "OTHER"), "not the one that the saved stream has heard"),
        (("--audio", "SHORT"), "ends after"),
        (("--image", "OTHER"), "picture"),
    ],
)
def test_resume_refuses_another_stream(
    generate, begun: dict, tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "other.png")
    other = {
        "--audio": {"OTHER": lambda: write_wav(tmp_path / "o.wav", speech(SECONDS, seed=1)),
                    "SHORT": lambda: write_wav(tmp_path / "o.wav", speech(0.1))},
        "--image": {"OTHER": lambda: tmp_path / "other.png"},
    }  # fmt: skip
    value = other.get(change[0], {}).get(change[1], lambda: change[1])()
    outcome = generate("--resume", begun["folder"] / "s.state", change[0], value, out="rest.mkv")
    assert outcome.code == 2
    assert says in outcome.json["error"]["message"]
    assert not (tmp_path / "rest.mkv").exists()


def test_size_follows_the_picture(tiny_model_folder: Path, talk: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 600), "grey").save(tmp_path / "tall.png")
    arguments = ("--audio", talk, "--out", tmp_path / "a.mp4", "--model", tiny_model_folder, "--max-seconds", 0.1)
    report = livetalk("generate", *arguments, "--image", tmp_path / "tall.png", "--steps", 1, "--json").json
    assert (report["width"], report["height"]) == (48, 96)
    info = probe_video(tmp_path / "a.mp4")
    assert (info.width, info.height, info.video_codec, info.audio_codec) == (48, 96, "h264", "aac")


def test_result_line_for_people(tiny_model_folder: Path, talk: Path, tmp_path: Path) -> None:
    arguments = ("--audio", talk, "--out", tmp_path / "a.mkv", "--model", tiny_model_folder, "--max-seconds", 0.1)
    outcome = livetalk("generate", *arguments, "--steps", 1, "--prompt", "a prompt it cannot read")
    assert outcome.code == 0 and "a.mkv" in outcome.stdout and "real-time factor" in outcome.stdout
    assert "prompt ignored" in outcome.stderr
