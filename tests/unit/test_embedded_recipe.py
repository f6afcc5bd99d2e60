"""`make embedded-model` as a chain, from nothing, at budgets of seconds: the Makefile's own lines (slow tier)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
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
"""Module of each training by the clock -> its folder below RUNS."""
SECONDS = 15.0
"""Of each of these and of each time that it goes on."""

FEW = "--set run.iterations=2 --set run.batch=2 --set run.save_every=1"
UNDISTILLED = (
    ("audio_run", "--utterances 12"), ("clips", "--count 4"), ("train_vae", ""), ("latent_cache", ""),
    ("train_stage1", ""), ("train_vae_borders", ""), ("package_embedded", ""),
)  # fmt: skip
DISTILLED = (
    ("train prepare", "--drawn 4 --chunks 2"), ("train stage1", FEW), ("train export", ""),
    ("train stage2", f"{FEW} --set method.max_chunks=2"), ("train export", ""), ("package_embedded", ""),
)  # fmt: skip
"""What each line runs, and options that make it small: the last of an option counts."""


def recipe(folder: Path) -> list[str]:
    """The shell lines of `make embedded-model`, with everything that they write under `folder`."""
    places = [f"RUNS={folder}/runs", f"EMBEDDED={folder}/model", f"BIN={Path(sys.executable).parent}", "TORCH=torch"]
    made = subprocess.run(
        ["make", "-n", "embedded-model", *places], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = made.stdout.replace("\\\n", " ").splitlines()
    return [line for line in lines if "livetalk_core.training.embedded" in line or "livetalk train" in line]


def run(folder: Path, steps: Sequence[tuple[str, str]]) -> None:
    """The lines of the recipe from its first one on, as many as there are steps."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    spent = seconds_of_runs(folder)
    for line, (step, smaller) in zip(recipe(folder), steps, strict=False):
        assert f"{step} " in line
        command = f"{line} {smaller}"
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
    assert len(recipe(tmp_path)) == len(UNDISTILLED) + len(DISTILLED)
    run(tmp_path, UNDISTILLED)
    first = newest_of(tmp_path)
    run(tmp_path, UNDISTILLED + DISTILLED)
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
