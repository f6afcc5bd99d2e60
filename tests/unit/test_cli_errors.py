"""Bad input: a message that names the value, a remedy, a code, no traceback, and nothing left behind."""

from __future__ import annotations

import io
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_tools import RATE, Outcome, livetalk, speech, write_float_wav, write_png_header, write_wav
from PIL import Image

from livetalk_core.errors import AudioError
from livetalk_core.media import VideoWriter
from livetalk_core.production import VideoRequest
from livetalk_core.production.checks import check_files

pytestmark = pytest.mark.unit


@pytest.fixture
def refused(tiny_model_folder: Path, tmp_path: Path) -> Callable[..., str]:
    """Run `generate` with good values but for the given ones; returns the one error text."""
    inputs, results = tmp_path / "in", tmp_path / "out"
    inputs.mkdir(), results.mkdir()
    talk = write_wav(inputs / "talk.wav", speech(0.4))

    def run(**changed: object) -> str:
        values = {
            "--audio": talk, "--out": results / "a.mkv", "--model": tiny_model_folder, "--size": "32x32",
            "--steps": 1, "--report": results / "r.json",
        }  # fmt: skip
        values.update({"--" + name.replace("_", "-"): value for name, value in changed.items()})
        arguments = [item for name, value in values.items() for item in (name, value)]
        outcome: Outcome = livetalk("generate", *arguments)
        assert outcome.code == 2
        assert "Traceback" not in outcome.stderr + outcome.stdout
        assert outcome.stderr.startswith("error: ") and " fix: " in outcome.stderr
        assert list(results.iterdir()) == [], "something was left behind"
        return outcome.stderr

    return run


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b"RIFF\x24\0\0\0WAVEfmt broken", "not a sound file"),
        (np.random.default_rng(0).bytes(4000), "not a sound file"),
        (b"this is a text\n" * 40, "not a sound file"),
    ],
)
def test_bad_sound(refused: Callable[..., str], tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.wav"
    if content is not None:
        path.write_bytes(content)
    text = refused(audio=path)
    assert says in text and "bad.wav" in text


@pytest.mark.parametrize("at", [0, 0.39])
def test_samples_that_are_not_numbers(refused: Callable[..., str], tmp_path: Path, at: float) -> None:
    samples = speech(0.4).astype(np.float32) / 32768
    samples[round(at * RATE)] = np.nan
    text = refused(audio=write_float_wav(tmp_path / "nan.wav", samples))
    assert "nan" in text and f"{at:.4f} s" in text


def _text(path: Path) -> Path:
    path.write_text("not a picture")
    return path


def _truncated(path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:20_000])
    return path


def _one_pixel(path: Path) -> Path:
    Image.new("RGB", (1, 1)).save(path)
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_one_pixel, "1x1"),
        (lambda path: write_png_header(path, 20_000, 20_000), "400 megapixels"),
        (_truncated, "damaged"),
        (_text, "not a picture"),
        (lambda path: path, "does not exist"),
    ],
)
def test_bad_picture(refused: Callable[..., str], tmp_path: Path, make: Callable[[Path], Path], says: str) -> None:
    text = refused(image=make(tmp_path / "face.png"))
    assert says in text and "face.png" in text


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("size", "65x64", "width is 65. fix: Allowed: a multiple of 16"),
        ("size", "64x8", "height is 8"),
        ("size", "64", "--size is '64'"),
        ("size", "9999x64", "9999"),
        ("seed", "-1", "seed is -1"),
        ("seed", str(2**64), str(2**64)),
        ("steps", "0", "steps is 0"),
        ("shift", "-2", "shift is -2.0"),
        ("color_strength", "1.5", "color_strength is 1.5"),
        ("lookback", "6", "lookback is 6. fix: Allowed: 0 to 5"),
        ("drift_threshold", "-1", "drift_threshold is -1.0"),
        ("renoise", "2", "renoise is 2.0"),
        ("max_seconds", "0", "0.0 seconds"),
        ("max_seconds", "nan", "nan seconds"),
        ("device", "cuda:99", "cuda:99"),
        ("device", "toaster", "toaster"),
        ("dtype", "fp12", "fp12"),
    ],
)
def test_bad_setting(refused: Callable[..., str], option: str, value: str, says: str) -> None:
    assert says in refused(**{option: value})


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("folder", "is a folder"),
        ("missing/a.mp4", "does not exist"),
        ("a.gif", "'.gif'"),
        ("a", "suffix 'none'"),
        ("../in/talk.wav/a.mp4", "is not a folder"),
    ],
)
def test_bad_output(refused: Callable[..., str], tmp_path: Path, out: str, says: str) -> None:
    # The folder stands outside, for the place of results is checked to be empty.
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" if out == "folder" else tmp_path / "out" / out
    assert says in refused(out=path)


def test_unwritable_output(refused: Callable[..., str]) -> None:
    assert "Cannot write /proc/a.mp4" in refused(out="/proc/a.mp4")


@pytest.mark.parametrize("option", ["report", "state"])
def test_one_file_for_two_things(refused: Callable[..., str], tmp_path: Path, option: str) -> None:
    talk = tmp_path / "in" / "talk.wav"
    before = talk.read_bytes()
    assert "are the same file" in refused(**{option: talk})
    assert talk.read_bytes() == before


def test_a_report_never_replaces_the_state_that_is_resumed(refused: Callable[..., str], tmp_path: Path) -> None:
    state = tmp_path / "x.state"
    state.write_bytes(b"precious")
    assert "are the same file" in refused(resume=state, report=state)
    assert state.read_bytes() == b"precious"


@pytest.mark.parametrize("content", [None, b"", b"no state at all, but long enough", b"\x10\0\0\0\0\0\0\0{}"])
def test_bad_state(refused: Callable[..., str], tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.state"
    if content is not None:
        path.write_bytes(content)
    assert "state" in refused(resume=path)


def test_unknown_model(refused: Callable[..., str], tmp_path: Path) -> None:
    text = refused(model=tmp_path / "nowhere")
    assert "nowhere" in text and "model folder" in text


@pytest.fixture
def copied_model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "copy"))


def test_half_a_checkpoint(refused: Callable[..., str], copied_model: Path) -> None:
    shutil.rmtree(copied_model / "vae")
    assert "vae" in refused(model=copied_model)


def test_truncated_weights(refused: Callable[..., str], copied_model: Path) -> None:
    weights = next((copied_model / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert weights.name in refused(model=copied_model)


def test_pickle_with_a_borrowed_name(refused: Callable[..., str], copied_model: Path) -> None:
    weights = next((copied_model / "transformer").glob("*.safetensors"))
    weights.write_bytes(pickle.dumps({"weight": [1.0] * 100}))
    assert weights.name in refused(model=copied_model)


def test_full_disk(refused: Callable[..., str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        text = refused(size="64x64")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Cannot write" in text and "a.mkv" in text


def test_error_as_json(tmp_path: Path) -> None:
    outcome = livetalk("generate", "--audio", tmp_path / "no.wav", "--out", tmp_path / "a.mp4", "--json")
    error = outcome.json["error"]
    assert outcome.code == 2
    assert error["code"] == "bad_audio" and "no.wav" in error["message"] and error["fix"]


def test_terminal_for_sound_is_refused_before_anything_else(tmp_path: Path) -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(AudioError, match="terminal"):
        check_files(VideoRequest(audio="-", output=tmp_path / "a.mp4", stdin=Terminal()))


def test_sound_file_piped_as_raw_samples(tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "t.wav", speech(0.2)).read_bytes()
    outcome = livetalk("generate", "--audio", "-", "--out", tmp_path / "a.mp4", "--model", "random:tiny", stdin=wav)
    assert outcome.code == 2 and "WAV file" in outcome.stderr
    assert not (tmp_path / "a.mp4").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_what_a_killed_run_left_is_mentioned(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "old.mp4", 32, 32, 25) as writer:
        writer.write(np.zeros((9, 32, 32, 3), np.uint8))
    (tmp_path / "old.mp4").rename(tmp_path / "old.0123abcd.partial.mp4")
    outcome = livetalk("generate", "--audio", tmp_path / "no.wav", "--out", tmp_path / "new.mp4")
    assert "old.0123abcd.partial.mp4 is left of a run that was killed" in outcome.stderr
