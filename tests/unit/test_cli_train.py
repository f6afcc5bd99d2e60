"""`livetalk train` from the outside: plans, recipes, a whole small run, and what is refused."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from livetalk_core.cli import app
from livetalk_core.loading import open_parts
from livetalk_core.training.memory import memory_plan, published_transformer
from livetalk_core.training.recipes import RECIPES, change_recipe, find_recipe

pytestmark = pytest.mark.unit
NEEDS_CPU_SHARDS = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason=f"torch {torch.__version__} cannot train on a CPU"
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", *arguments])


def test_recipes_are_listed_and_shown() -> None:
    listed = run("recipes")
    assert listed.exit_code == 0
    names = [line.split()[1] for line in listed.output.splitlines() if line.startswith("stage")]
    assert names.count("paper-14b") == names.count("toy") == names.count("toy-64") == 2
    shown = json.loads(run("recipes", "paper-14b").output)
    assert shown["stage2"]["method"]["max_chunks"] == 5
    assert shown["stage1"]["method"]["optimizer"]["learning_rate"] == 2e-6
    assert run("recipes", "other").exit_code == 2


def test_names_of_recipes_are_those_they_are_found_by() -> None:
    for stage, known in RECIPES.items():
        assert all(find_recipe(stage, name).name == name for name in known)


def test_plan_of_the_paper_fits_eight_cards_of_80_gb() -> None:
    for stage in ("stage1", "stage2"):
        result = run(stage, "--recipe", "paper-14b", "--data", "none", "--out", "none", "--dry-run")
        assert result.exit_code == 0, result.output
        assert "18,88" in result.output and "8 rank(s)" in result.output
    transformer = published_transformer()
    plans = [memory_plan(find_recipe(stage, "paper-14b"), transformer, 8, (448, 768)) for stage in ("stage1", "stage2")]
    assert all(10e9 < plan.device < 80e9 for plan in plans)
    # Without offloading, three networks with two optimisers do not fit.
    resident = change_recipe(find_recipe("stage2", "paper-14b"), ["run.offload=false"])
    assert memory_plan(resident, transformer, 8, (448, 768)).device > 80e9


def test_trained_bytes_of_the_plan_are_those_of_the_networks(tiny_model_folder: Path) -> None:
    transformer = open_parts(tiny_model_folder).transformer()
    plan = memory_plan(find_recipe("stage2", "toy"), transformer, 2, (64, 64))
    count = sum(p.numel() for p in transformer.parameters())
    # Weights, gradient, two moments of two networks, the student's average: nine float32 copies over two ranks.
    assert plan.lines[0].device + plan.lines[1].device == 9 * 4 * count / 2


def stage1(data: Path, model: Path, out: Path, *more: str) -> Result:
    """Two iterations, or as `more` says."""
    settings = ("iterations=2", "batch=2", "save_every=1", "sample_every=2")
    changes = (part for setting in settings for part in ("--set", f"run.{setting}"))
    command = ("stage1", "--data", str(data), "--model", str(model), "--out", str(out), "--device", "cpu")
    return run(*command, *changes, *more)


@pytest.fixture(scope="module")
def finished(
    prepared_folder: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A run of two iterations and what it printed; read only."""
    out = tmp_path_factory.mktemp("run") / "run"
    result = stage1(prepared_folder, tiny_model_folder, out)
    assert result.exit_code == 0, result.output
    return out, result.output


@NEEDS_CPU_SHARDS
def test_a_run_from_data_to_model(
    finished: tuple[Path, str], prepared_folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out, printed = finished
    assert "memory, estimated" in printed and "0000002" in printed
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["iteration"] == 2
    assert (out / "samples" / "0000002.mp4").is_file()
    again = stage1(prepared_folder, tiny_model_folder, out)
    assert again.exit_code == 2 and "--resume" in again.output
    exported = run("export", str(out), "--out", str(tmp_path / "model"), "--model", str(tiny_model_folder))
    assert exported.exit_code == 0, exported.output
    assert open_parts(tmp_path / "model").encoders == open_parts(tiny_model_folder).encoders


def told(result: Result) -> str:
    """What a command that did not succeed said."""
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


@NEEDS_CPU_SHARDS
def test_a_full_disk_leaves_the_last_checkpoint_and_the_run_goes_on_from_it(
    finished: tuple[Path, str], prepared_folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished[0], tmp_path / "run")
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    more = ("--resume", "--set", "run.iterations=3", "--set", "run.sample_every=0")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        full = told(stage1(prepared_folder, tiny_model_folder, out, *more))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Cannot write" in full and "0000003" in full
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == kept
    assert stage1(prepared_folder, tiny_model_folder, out, *more).exit_code == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["iteration"] == 3


@NEEDS_CPU_SHARDS
def test_a_loss_that_is_no_number_ends_the_run_before_anything_is_updated(
    prepared_folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    nan = told(stage1(prepared_folder, tiny_model_folder, tmp_path, "--set", "method.flow_weight=1e39"))
    assert "denoiser.loss is inf in iteration 0; nothing was updated" in nan and "learning rate" in nan
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_file_in_the_place_of_the_folder_is_named(
    prepared_folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert "a file is in its way" in told(stage1(prepared_folder, tiny_model_folder, tmp_path / "file"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("stage1", "--data", "none", "--out", "o"), "prepared data"),
        (("stage2", "--data", "none", "--out", "o", "--recipe", "other"), "no recipe"),
        (("stage2", "--data", "none", "--out", "o", "--set", "method.max_chunk=3"), "method.max_chunks"),
        (("stage2", "--data", "none", "--out", "o", "--set", "method.max_chunks=0"), "max_chunks is 0"),
        (("stage2", "--data", "none", "--out", "o", "--model", "none"), "no model folder"),
        (("export", "none", "--out", "o"), "no checkpoint"),
        (("prepare", "--out", "o"), "Say what to prepare"),
        (("ablation", "--data", "none", "--out", "o", "--arm", "K"), "no arm"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not list(tmp_path.glob("o/**/*.safetensors"))
