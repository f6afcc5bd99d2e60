"""`make embedded-model` as a chain, from nothing, at budgets of seconds: the Makefile's own lines (slow tier)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livetalk_core.engine import Engine, generate
from livetalk_core.loading import load_model
from livetalk_core.media import load_picture
from livetalk_core.production.request import BUNDLED_PORTRAIT
from livetalk_core.training.trainer.checkpoint import newest_checkpoint, read_facts
from livetalk_core.training.trainer.metrics import read_metrics

pytestmark = [pytest.mark.unit, pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[2]
TRAINED = {"audio_run": "audio", "train_vae": "vae", "train_stage1": "stage1", "train_vae_borders": "vae_borders"}
"""Module of each training -> its folder below RUNS."""

STEPS = ("audio_run", "clips", "train_vae", "latent_cache", "train_stage1", "train_vae_borders", "package_embedded")
SMALLER = {"audio_run": "--utterances 12", "clips": "--count 4"}
SECONDS = 15.0
"""Of each training and of each time that it goes on."""



def recipe(folder: Path) -> list[str]:
    """The shell lines of `make embedded-model`, with everything that they write under `folder`."""
    places = [f"RUNS={folder}/runs", f"EMBEDDED={folder}/model", f"BIN={Path(sys.executable).parent}", "TORCH=torch"]
    made = subprocess.run(
        ["make", "-n", "embedded-model", *places], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = made.stdout.replace("\\\n", " ").splitlines()
    return [line for line in lines if "livetalk_core.training.embedded" in line]


def step_of(line: str) -> str:
    return next(name for name in STEPS if f"embedded.{name} " in line)


def run_all(folder: Path) -> None:
    """Every line of the recipe with options that make it small: the last of an option counts."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    spent = seconds_of_runs(folder)
    for line in recipe(folder):
        step = step_of(line)
        command = f"{line} {SMALLER.get(step, '')}"
        if step in TRAINED:
            command += f" --minutes {(spent.get(step, 0.0) + SECONDS) / 60}"
        done = subprocess.run(
            ["bash", "-eu", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr[-3000:]}"


def newest_of(folder: Path) -> dict[str, dict[str, Any]]:
    """What the newest checkpoint of each training says."""
    places = {step: folder / "runs" / name / "checkpoints" for step, name in TRAINED.items()}
    return {step: read_facts(newest_checkpoint(place)) for step, place in places.items() if place.is_dir()}


def seconds_of_runs(folder: Path) -> dict[str, float]:
    return {step: facts["seconds"] for step, facts in newest_of(folder).items()}


@pytest.mark.skipif(
    not all(shutil.which(program) for program in ("make", "espeak-ng", "festival")),
    reason="the recipe needs make, espeak-ng and festival with its voices",
)
def test_every_step_of_the_recipe_runs_goes_on_and_ends_in_a_model_that_speaks(tmp_path: Path) -> None:
    assert tuple(step_of(line) for line in recipe(tmp_path)) == STEPS
    run_all(tmp_path)
    first = newest_of(tmp_path)
    run_all(tmp_path)
    second = newest_of(tmp_path)
    for step, name in TRAINED.items():
        assert second[step]["iteration"] > first[step]["iteration"] > 0, step
        assert second[step]["seconds"] >= first[step]["seconds"] + SECONDS, step
        folder = tmp_path / "runs" / name
        iterations = [row["iteration"] for row in read_metrics(folder / "metrics.jsonl")]
        assert iterations == sorted(set(iterations)) and iterations[-1] == second[step]["iteration"]
        assert (folder / "curves.png").is_file()
    bundle = load_model(tmp_path / "model", device="cpu")
    config = bundle.defaults.stream()
    samples = np.random.default_rng(0).standard_normal(config.geometry.slice_samples).astype(np.float32) * 0.1
    [chunk] = generate(Engine(bundle), config, load_picture(BUNDLED_PORTRAIT), [samples])
    assert chunk.frames.shape == (28, 128, 128, 3)
