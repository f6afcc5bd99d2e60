"""`livetalk train` from the outside: plans, recipes, a whole small run, and what is refused."""

from __future__ import annotations

import json
import resource
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


SMALL = ("--set", "run.iterations=2", "--set", "run.batch=2", "--set", "run.save_every=1", "--device", "cpu")


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


@NEEDS_CPU_SHARDS
def test_a_run_from_data_to_model(prepared_folder: Path, tiny_model_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    common = ("--data", str(prepared_folder), "--out", str(out), "--model", str(tiny_model_folder))
    first = run("stage1", *common, *SMALL)
    assert first.exit_code == 0, first.output
    assert "memory, estimated" in first.output and "0000002" in first.output
    assert run("stage1", *common, *SMALL).exit_code == 2
    longer = [argument.replace("iterations=2", "iterations=3") for argument in SMALL]
    assert run("stage1", *common, *longer, "--resume").exit_code == 0
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["iteration"] == 3
    exported = run("export", str(out), "--out", str(tmp_path / "model"), "--model", str(tiny_model_folder))
    assert exported.exit_code == 0, exported.output
    assert open_parts(tmp_path / "model").encoders == open_parts(tiny_model_folder).encoders


@NEEDS_CPU_SHARDS
def test_trouble_in_a_run_is_told_and_leaves_the_last_checkpoint(
    prepared_folder: Path, tiny_model_folder: Path, tmp_path: Path
) -> None:
    """A loss that is no number, a disk that takes no more, a file in the folder's place: what the terminal says."""
    out = tmp_path / "run"
    common = ("stage1", "--data", str(prepared_folder), "--model", str(tiny_model_folder), *SMALL)

    def told(*arguments: str) -> str:
        result = run(*common, *arguments)
        assert result.exit_code == 2, result.output
        assert "Traceback" not in result.output
        return " ".join(result.output.split())

    assert run(*common, "--out", str(out)).exit_code == 0
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    more = ("--out", str(out), "--resume", "--set", "run.iterations=4")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        full = told(*more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Cannot write" in full and "0000003" in full
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == kept
    assert run(*common, *more).exit_code == 0
    nan = told("--out", str(tmp_path / "nan"), "--set", "method.flow_weight=1e39")
    assert "denoiser.loss is inf in iteration 0; nothing was updated" in nan and "learning rate" in nan
    assert not list((tmp_path / "nan").glob("checkpoints/*"))
    (tmp_path / "file").touch()
    assert "a file is in its way" in told("--out", str(tmp_path / "file"))


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
