"""A training run that is killed goes on as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fakes.daemons import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
SECONDS = 200


def start(model: Path, data: Path, out: Path, *more: str) -> subprocess.Popen[bytes]:
    settings = ("iterations=6", "batch=2", "save_every=1", "log_every=1", "sample_every=0")
    command = [
        sys.executable, "-m", "livetalk_core.cli", "train", "stage1", "--model", str(model), "--data", str(data),
        "--out", str(out), "--device", "cpu", *(part for s in settings for part in ("--set", f"run.{s}")), *more,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def losses(out: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_killed_run_ends_as_the_one_that_lived(tiny_model_folder: Path, prepared_folder: Path, tmp_path: Path) -> None:
    lived = start(tiny_model_folder, prepared_folder, tmp_path / "lived")
    _, log = lived.communicate(timeout=SECONDS)
    assert lived.returncode == 0, log.decode()
    killed = start(tiny_model_folder, prepared_folder, tmp_path / "killed")
    second = tmp_path / "killed" / "checkpoints" / "0000002"
    wait_until(lambda: second.is_dir() or killed.poll() is not None, SECONDS, "a second checkpoint")
    assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    resumed = start(tiny_model_folder, prepared_folder, tmp_path / "killed", "--resume")
    _, log = resumed.communicate(timeout=SECONDS)
    assert resumed.returncode == 0, log.decode()
    assert len(losses(tmp_path / "lived")) == 6
    assert losses(tmp_path / "killed") == losses(tmp_path / "lived")
