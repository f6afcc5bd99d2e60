"""`livetalk generate` and `produce` on real ranks show what the engine in this process shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from cli_tools import interrupted, livetalk, speech, write_wav
from fakes.daemons import assert_all_gone, wait_until
from fakes.real import PATIENT, off_by

from livetalk_core.daemon.daemon_config import DaemonConfig
from livetalk_core.daemon.registry import running_daemons
from livetalk_core.errors import ConfigError, DeviceError, StateError
from livetalk_core.media import probe_video, read_video
from livetalk_core.production import Observer, Recording, Report, VideoRequest, make_backend, produce

pytestmark = [pytest.mark.dist, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000
SOUND = Recording(speech(0.75).astype(np.float32) / 32768, RATE)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this user's daemons."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    root = tmp_path / "livetalk"
    root.mkdir(mode=0o700)
    yield root
    assert_all_gone(root)


@pytest.fixture
def request_of(root: Path, tiny_model_folder: Path, tmp_path: Path) -> Callable[..., VideoRequest]:
    daemon = DaemonConfig(grace=0.3, deadlines=PATIENT)

    def make(out: str, **fields: Any) -> VideoRequest:
        settings = {"size": (64, 64), "steps": 2, "seed": 5} if "resume" not in fields else {}
        return VideoRequest(
            SOUND, tmp_path / out, model=str(tiny_model_folder), dtype="fp32", device="cpu", daemon=daemon,
            **{**settings, **fields},
        )  # fmt: skip

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Ranks compute with one thread, and so does the engine they are compared with."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def digests(report: Report) -> list[str]:
    return [chunk.sha256 for chunk in report.chunks]


def test_one_rank_makes_the_same_film_and_both_continue_each_others_states(
    request_of: Callable[..., VideoRequest], tmp_path: Path
) -> None:
    here = produce(request_of("here.mkv"))
    backend = make_backend(request_of("x.mkv", world_size=1))
    try:
        there = produce(request_of("there.mkv", world_size=1), backend=backend)
        assert digests(there) == digests(here) and len(here.chunks) > 3
        assert (there.model, there.revision, there.device, there.dtype) == (
            here.model, here.revision, here.device, here.dtype,
        )  # fmt: skip
        assert there.audio_seconds == here.audio_seconds and there.frames == here.frames
        assert there.worker_pids != here.worker_pids == [os.getpid()]
        for begins, goes_on in ((None, 1), (1, None), (1, 1)):
            kept = {1: backend, None: None}
            state = tmp_path / f"{begins}-{goes_on}.state"
            half = request_of("begin.mkv", world_size=begins, state=state, max_seconds=0.32)
            begun = produce(half, backend=kept[begins])
            rest = produce(request_of("rest.mkv", world_size=goes_on, resume=state), backend=kept[goes_on])
            assert rest.resumed_from == 2 and digests(begun) + digests(rest) == digests(here)
        features = {"clip_features": torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(0))}
        for fields in ({"mode": "whole"}, features):
            films = [
                digests(produce(request_of("film.mkv", world_size=world, **fields), backend=kept[world]))
                for world in (None, 1)
            ]
            assert films[0] == films[1] != digests(here)
        with pytest.raises(StateError, match="picture"):
            produce(request_of("rest.mkv", world_size=1, resume=state, **features), backend=backend)
    finally:
        backend.close()


def test_two_ranks_make_the_same_film_within_a_rounding(
    request_of: Callable[..., VideoRequest], tmp_path: Path
) -> None:
    produce(request_of("one.mkv"))
    report = produce(request_of("two.mkv", world_size=2))
    assert report.world_size == 2 and len(set(report.worker_pids)) == 2
    films = [np.stack(list(read_video(tmp_path / name))) for name in ("one.mkv", "two.mkv")]
    identical, largest = off_by([films[1]], [films[0]])
    assert identical >= 0.999 and largest <= 1


def test_impossible_worlds_are_refused_before_anything_starts(
    root: Path, request_of: Callable[..., VideoRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"3 tokens / 4 ranks is less than one"):
        produce(request_of("many.mkv", world_size=4, size=(16, 16)))
    with pytest.raises(ConfigError, match="world_size is 65"):
        produce(request_of("many.mkv", world_size=65))
    with pytest.raises(DeviceError, match=r"no CUDA|sees no GPU|there is no cuda:98"):
        produce(replace(request_of("many.mkv", world_size=2), device="cuda", devices=(98, 99)))
    assert not list(root.iterdir())


def test_stop_within_a_chunk_here_and_there(request_of: Callable[..., VideoRequest], tmp_path: Path) -> None:
    for world in (None, 1):
        made = threading.Event()

        class Presser(Observer):
            def step(self, chunk: int, step: int, steps: int) -> None:
                if (chunk, step) == (2, 1):
                    made.set()  # noqa: B023 - used within this turn

        report = produce(replace(request_of("s.mkv", world_size=world), stop=made.is_set), Presser())
        assert report.status == "interrupted" and 2 <= len(report.chunks) <= 3
        assert probe_video(tmp_path / "s.mkv").frames == report.frames


def test_ctrl_c_with_ranks_leaves_a_film_that_can_be_continued(
    root: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """The sound comes through a pipe that stays open, so the chunks prove streaming as well."""
    samples = speech(0.75)
    common = ("--model", tiny_model_folder, "--dtype", "fp32", "--device", "cpu", "--size", "32x32", "--steps", 1)
    wav = write_wav(tmp_path / "talk.wav", samples)
    whole = livetalk("generate", "--audio", wav, "--out", tmp_path / "whole.mkv", *common, "--json").json
    state, report_file = tmp_path / "live.state", tmp_path / "live.json"
    code, text = interrupted(samples[: round(0.4 * RATE)], state, "--out", tmp_path / "live.mkv", *common,
                             "--report", report_file, "--world-size", 1)  # fmt: skip
    assert code == 130 and "Interrupted" in text and "Traceback" not in text and "Fatal" not in text, text
    report = json.loads(report_file.read_text())
    assert report["status"] == "interrupted" and report["world_size"] == 1
    rest = livetalk("generate", "--audio", wav, "--out", tmp_path / "rest.mkv", *common[:6], "--resume", state,
                    "--json", "--world-size", 1)  # fmt: skip
    shas = [[chunk["sha256"] for chunk in each["chunks"]] for each in (report, rest.json, whole)]
    assert shas[0] and shas[0] + shas[1] == shas[2]


def test_generate_joins_a_daemon_that_was_started(root: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    which = ("--world-size", 2, "--model", tiny_model_folder, "--dtype", "fp32", "--device", "cpu")
    started = livetalk("daemon", "start", *which, "--idle-timeout", 5, "--json").json
    assert started["state"] == "ready" and not started["joined"] and started["idle_timeout"] == 300
    again = livetalk("daemon", "start", *which)
    assert again.code == 0 and "Already there" in again.stdout
    wav = write_wav(tmp_path / "talk.wav", speech(0.3))
    for _ in range(2):
        made = livetalk("generate", "--audio", wav, "--out", tmp_path / "a.mkv", *which, "--json").json
        assert made["worker_pids"] == [rank["pid"] for rank in started["ranks"]]
    timed = livetalk("bench", *which, "--size", "64x64", "--chunks", 2, "--warmup", 0, "--json").json
    assert timed["world_size"] == 2 and timed["stages"]["chunk"]["count"] == 2 and timed["peak_rss_bytes"] > 10**8
    os.kill(started["ranks"][1]["pid"], signal.SIGKILL)
    wait_until(lambda: running_daemons()[0].stats().restarts == 1, 20, "the death was noticed")
    after = livetalk("generate", "--audio", wav, "--out", tmp_path / "a.mkv", *which, "--json").json
    assert [chunk["sha256"] for chunk in after["chunks"]] == [chunk["sha256"] for chunk in made["chunks"]]
    assert "stopped when asked" in livetalk("daemon", "stop").stdout
    assert not any(psutil.pid_exists(pid) for pid in after["worker_pids"])


def test_daemon_whose_model_cannot_be_loaded_is_not_left_behind(
    root: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    broken = shutil.copytree(tiny_model_folder, tmp_path / "broken")
    weights = max(broken.rglob("*.safetensors"), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1000])
    outcome = livetalk("daemon", "start", "--model", broken, "--device", "cpu")
    assert outcome.code == 2 and "error:" in outcome.stderr and "fix:" in outcome.stderr
    assert weights.name in outcome.stderr and not running_daemons()
    (broken / "empty").mkdir()
    outcome = livetalk("daemon", "start", "--model", broken / "empty", "--device", "cpu")
    assert outcome.code == 2 and "empty" in outcome.stderr
