"""What programs ask of `produce` beyond files: pictures and sound in memory, settings, a wish to stop."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_tools import speech, write_wav
from PIL import Image

from livetalk_core.config import ChunkGeometry, CorrectionConfig
from livetalk_core.daemon.daemon_config import DaemonConfig
from livetalk_core.errors import AudioError, ConfigError, ImageError
from livetalk_core.loading.hardware import cpu_has_bf16
from livetalk_core.media import probe_video
from livetalk_core.production import (
    Exhibits,
    Observer,
    Recording,
    Report,
    Stopped,
    VideoRequest,
    daemon_config,
    make_backend,
    produce,
)

pytestmark = pytest.mark.unit
RATE = 16_000
SAMPLES = speech(0.5)


@pytest.fixture
def request_(tiny_model_folder: Path, tmp_path: Path) -> VideoRequest:
    sound = Recording(SAMPLES.astype(np.float32) / 32768, RATE, "a voice")
    return VideoRequest(
        sound, tmp_path / "out.mkv", model=str(tiny_model_folder), size=(32, 32), steps=1, dtype="fp32", device="cpu"
    )


def digests(report: Report) -> list[str]:
    return [chunk.sha256 for chunk in report.chunks]


def test_sound_and_picture_in_memory_are_as_good_as_files(request_: VideoRequest, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 60, 4), dtype=np.uint8)
    picture = Image.fromarray(pixels, "RGBA")
    picture.save(tmp_path / "face.png")
    files = replace(request_, audio=str(write_wav(tmp_path / "a.wav", SAMPLES)), image=tmp_path / "face.png")
    given, read = produce(replace(request_, image=picture)), produce(files)
    assert digests(given) == digests(read)
    assert (given.audio, given.image) == ("a voice", "the given picture")
    assert given.audio_seconds == read.audio_seconds == 0.5
    twice = Recording(np.repeat(SAMPLES.astype(np.float32) / 32768, 2), 2 * RATE)
    assert abs(produce(replace(request_, audio=twice)).frames - given.frames) <= 1


@pytest.mark.parametrize(
    ("fields", "error", "says"),
    [
        ({"audio": Recording(np.zeros((2, 100), np.float32), RATE)}, AudioError, r"\[2, 100\]"),
        ({"audio": Recording(np.zeros(0, np.float32), RATE)}, AudioError, "no sound"),
        ({"audio": Recording(np.full(99, np.nan, np.float32), RATE)}, AudioError, "not a number"),
        ({"audio": Recording(np.zeros(99, np.float32), 0)}, AudioError, "0 samples per second"),
        ({"image": Image.new("RGB", (8, 8))}, ImageError, "8x8"),
        ({"loudness": 3.0}, ConfigError, "loudness"),
        ({"world_size": 0}, ConfigError, "world_size"),
    ],
)
def test_what_cannot_be_used_is_refused(
    request_: VideoRequest, fields: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        produce(replace(request_, **fields))
    assert not request_.output.exists()


def test_settings_of_the_stream_are_the_requests(request_: VideoRequest) -> None:
    jobs: list[Any] = []

    class Looker(Observer):
        def checked(self, job: Any) -> None:
            jobs.append(job.config)

    geometry = ChunkGeometry(frames=13, motion_frames=5, window_seconds=2)
    report = produce(
        replace(request_, geometry=geometry, loudness=-20.0, correction=CorrectionConfig(color_strength=0.5)), Looker()
    )
    (config,) = jobs
    assert config.geometry == geometry and config.audio.loudness == -20 and config.correction.color_strength == 0.5
    assert (report.chunk_frames, report.motion_frames, report.color_strength) == (13, 5, 0.5)
    assert [chunk.frames for chunk in report.chunks] == [8, 5]


def test_steps_are_told_and_stop_ends_between_two_of_them(request_: VideoRequest, tmp_path: Path) -> None:
    told: list[tuple[int, int, int]] = []

    class Counter(Observer):
        def step(self, chunk: int, step: int, steps: int) -> None:
            told.append((chunk, step, steps))

    request = replace(request_, steps=3, state=tmp_path / "s.state", stop=lambda: (2, 1, 3) in told)
    report = produce(request, Counter())
    assert told == [(chunk, step, 3) for chunk in (0, 1) for step in (1, 2, 3)] + [(2, 1, 3)]
    assert report.status == "interrupted" and report.signal is None and len(report.chunks) == 2
    assert probe_video(request.output).frames == report.frames
    rest = produce(replace(request_, steps=None, size=None, resume=request.state))
    assert digests(report) + digests(rest) == digests(produce(replace(request_, steps=3)))
    asked: list[bool] = []

    def later() -> bool:
        asked.append(True)
        return len(asked) > 20

    for stop in (lambda: True, later):  # the second one while weights are read
        with pytest.raises(Stopped):
            produce(replace(request_, stop=stop))
    assert len(asked) == 21


def test_daemon_is_shared_by_whoever_asks_for_the_same(
    request_: VideoRequest, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**fields: Any) -> str:
        return daemon_config(replace(request_, **{"world_size": 2, **fields})).key()

    monkeypatch.chdir(tiny_model_folder.parent)
    assert key() == key(model=tiny_model_folder.name) == key(detached=True) == key(daemon=DaemonConfig(grace=9.0))
    assert key(dtype="auto") == key(dtype="bf16" if cpu_has_bf16() else "fp32") and key(seed=8) == key(device="auto")
    assert len({key(), key(dtype="bf16"), key(world_size=3), key(compile=True), key(model=None)}) == 5
    copy = shutil.copytree(tiny_model_folder, tmp_path / "copy")
    before = key(model=str(copy))
    os.utime(copy / "livetalk.json", (1, 1))
    assert key(model=str(copy)) != before, "its files were replaced"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_utf8_are_in_the_report(request_: VideoRequest, tmp_path: Path) -> None:
    out = tmp_path / os.fsdecode(b"m\xfc.mkv")
    produce(replace(request_, output=out, report=tmp_path / "r.json"))
    assert out.is_file() and "m\\udcfc.mkv" in (tmp_path / "r.json").read_text("utf-8")


def test_demonstration_keeps_the_models_time(request_: VideoRequest, tmp_path: Path) -> None:
    geometry = ChunkGeometry(frames=9, motion_frames=5, fps=50, window_seconds=1)
    exhibits = Exhibits()
    report = produce(replace(request_, geometry=geometry), exhibits)
    made = exhibits.leave(tmp_path, report)
    assert report.fps == 50 and made.sheet.is_file() and made.plot.is_file()


def test_kept_backend_loads_once(request_: VideoRequest) -> None:
    phases: list[str] = []

    class Looker(Observer):
        def phase(self, name: str) -> None:
            phases.append(name)

    backend = make_backend(request_)
    films = [digests(produce(request_, Looker(), backend)) for _ in range(2)]
    assert films[0] == films[1] and phases.count("loading") == 1
