"""`make embedded-model` as a chain, from nothing, at budgets of seconds: the Makefile's own lines (slow tier)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from livetalk_core.engine import Engine, generate
from livetalk_core.loading import load_model
from livetalk_core.media import load_picture
from livetalk_core.production.request import BUNDLED_PORTRAIT
from livetalk_core.training.trainer.checkpoint import newest_checkpoint
from livetalk_core.training.trainer.metrics import read_metrics

pytestmark = [pytest.mark.unit, pytest.mark.slow, pytest.mark.timeout(1800)]

TINY = {
    "audio_run": "--minutes {0} --utterances 12",
    "clips": "--count 4",
    "train_vae": "--minutes {0}",
    "latent_cache": "",
    "train_stage1": "--minutes {0}",
    "train_vae_borders": "--minutes {0}",
    "package_embedded": "",
}
"""Module of each step -> options that make it small; the last of an option counts."""

ROOT = Path(__file__).parents[2]
TRAINED = ("audio", "vae", "stage1", "vae_borders")


def recipe(folder: Path) -> list[str]:
    """The shell lines of `make embedded-model`, with everything that they write under `folder`."""
    places = [f"RUNS={folder}/runs", f"EMBEDDED={folder}/model", f"BIN={Path(sys.executable).parent}", "TORCH=torch"]
    made = subprocess.run(
        ["make", "-n", "embedded-model", *places], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = made.stdout.replace("\\\n", " ").splitlines()
    return [line for line in lines if "livetalk_core.training.embedded" in line]


def step_of(line: str) -> str:
    return next(name for name in TINY if f"embedded.{name} " in line)


def run_all(folder: Path, minutes: float) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for line in recipe(folder):
        command = f"{line} {TINY[step_of(line)].format(minutes)}"
        done = subprocess.run(
            ["bash", "-eu", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


def iterations(folder: Path) -> dict[str, int]:
    return {name: int(newest_checkpoint(folder / "runs" / name / "checkpoints").name) for name in TRAINED}


@pytest.mark.skipif(
    not all(shutil.which(program) for program in ("make", "espeak-ng", "festival")),
    reason="the recipe needs make, espeak-ng and festival with its voices",
)
def test_every_step_of_the_recipe_runs_goes_on_and_ends_in_a_model_that_speaks(tmp_path: Path) -> None:
    assert [step_of(line) for line in recipe(tmp_path)] == list(TINY)
    run_all(tmp_path, 0.25)
    first = iterations(tmp_path)
    assert all(count > 0 for count in first.values()), first
    run_all(tmp_path, 0.4)
    second = iterations(tmp_path)
    for name in TRAINED:
        assert second[name] > first[name], name
        rows = read_metrics(tmp_path / "runs" / name / "metrics.jsonl")
        assert [row["iteration"] for row in rows][-1] == second[name]
        assert rows[-1]["seconds"] >= 0.4 * 60
        assert (tmp_path / "runs" / name / "curves.png").is_file()
    bundle = load_model(tmp_path / "model", device="cpu")
    config = bundle.defaults.stream()
    samples = np.random.default_rng(0).standard_normal(config.geometry.slice_samples).astype(np.float32) * 0.1
    [chunk] = generate(Engine(bundle), config, load_picture(BUNDLED_PORTRAIT), [samples])
    assert chunk.frames.shape == (28, 128, 128, 3)
