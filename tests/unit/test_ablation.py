"""The self-correction ablation: its arms, a small one from training to report, and what its table says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_data import GEOMETRY

from livetalk_core.errors import ConfigError, TrainingError
from livetalk_core.loading import load_model
from livetalk_core.training import ablation
from livetalk_core.training.ablation import AblationRequest, rollout_config, run_ablation
from livetalk_core.training.ablation_report import ablation_table, change, lip_ends
from livetalk_core.training.avatars.avatar import Identity
from livetalk_core.training.evaluate.cases import EvaluationCase
from livetalk_core.training.recipes import Stage2Config, change_recipe, find_recipe
from livetalk_core.training.recipes.ablation import ARMS, CLAIMS, FIRST, TEACHER
from livetalk_core.training.speech.held_out import EvaluationUtterance
from livetalk_core.training.trainer.ranks import join_ranks

pytestmark = pytest.mark.unit
CHANGES = ("method.rollout.sampler.steps=2", "run.iterations=2", "run.batch=1", "method.max_chunks=2")


def case(chunks: int) -> EvaluationCase:
    """A picture of noise that says noise."""
    rng = np.random.default_rng(0)
    frames = chunks * GEOMETRY.slice_frames
    samples = rng.normal(0, 0.1, frames * GEOMETRY.samples_per_frame).astype(np.float32)
    mouth = rng.uniform(0, 1, (frames, 4)).astype(np.float32)
    picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    speech = EvaluationUtterance("noise", "none", "none", samples, mouth, np.zeros(0))
    return EvaluationCase("noise", Identity.from_seed(1), speech, picture, picture[None], np.zeros(1, np.float32))


def test_paper_comes_before_claims_and_the_untrained_first() -> None:
    runs = list(AblationRequest(Path("data"), Path("out"), teacher=Path("teacher")).runs())
    assert [arm for arm, _ in runs[:2]] == [FIRST, TEACHER]
    claims = [number for number, (arm, _) in enumerate(runs) if arm in CLAIMS]
    assert claims == list(range(len(runs) - 2 * len(CLAIMS), len(runs)))
    assert len(set(runs)) == len(runs) == 2 + 2 * len(ARMS)
    assert TEACHER not in dict(AblationRequest(Path("data"), Path("out")).runs())


def test_comparisons_of_nothing_are_refused(tmp_path: Path) -> None:
    for nothing, named in (({"seeds": ()}, "seeds is 0"), ({"chunks": 0}, "chunks is 0")):
        with pytest.raises(ConfigError, match=named):
            AblationRequest(tmp_path, tmp_path, **nothing)


def test_every_arm_changes_the_recipe_in_its_own_way() -> None:
    methods = [change_recipe(find_recipe("stage2", "toy-64"), changes).method for changes in ARMS.values()]
    assert len({json.dumps(repr(method)) for method in methods}) == len(ARMS)
    forced = methods[list(ARMS).index("teacher-forced")]
    assert isinstance(forced, Stage2Config) and forced.rollout.motion == "clip"


def test_students_are_judged_as_they_roll_out_in_training(tiny_model_folder: Path) -> None:
    recipe = change_recipe(find_recipe("stage2", "toy-64"), ["method.rollout.color_strength=0.2"])
    config = rollout_config(load_model(tiny_model_folder, "cpu", "fp32"), recipe)
    assert (config.width, config.height) == recipe.size
    assert config.correction.color_strength == 0.2
    assert config.correction.lookback == config.correction.border_fade == 0


def test_a_small_ablation_from_training_to_report(
    tiny_model_folder: Path, prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "long_case", lambda seconds, size: case(6))
    request = AblationRequest(
        prepared_folder, tmp_path, tiny_model_folder, arms=("K_max 1", "teacher-forced"), seeds=(0,), chunks=6,
        changes=CHANGES,
    )  # fmt: skip
    said: list[str] = []
    with join_ranks("cpu") as ranks:
        found = run_ablation(request, ranks, said.append)
        files = {path.name for path in tmp_path.iterdir() if path.is_file()}
        assert files == {"ablation.json", "ablation.md", "ablation.png", "ablation-frames.png"}
        assert set(found) == {FIRST, *request.arms}
        curves = found["K_max 1"]["0"]["curves"]
        assert all(len(curve) == 6 for curve in curves.values())
        with Image.open(tmp_path / "K_max_1-0" / "rollout.png") as strip:
            assert strip.height == 64 and strip.width > 64
        # Finished arms are read again, not made again.
        count = len(said)
        assert run_ablation(request, ranks, said.append) == found
        assert len(said) == count
        # Longer rollouts need no new training.
        shorter = run_ablation(replace(request, chunks=5), ranks, said.append)
        assert len(shorter["K_max 1"]["0"]["seconds"]) == 5
        assert not any("training" in line for line in said[count:])
        with pytest.raises(TrainingError, match=r"recipe\.run\.batch = 1, this run has 2"):
            run_ablation(replace(request, changes=(*CHANGES, "run.batch=2")), ranks, said.append)


def entry(**ends: tuple[float, float]) -> dict[str, Any]:
    flat = dict.fromkeys(("color", "identity", "sharpness", "lips"), (1.0, 1.0))
    curves = {name: [*np.linspace(1.0, 2.0, 30), *np.full(70, 2.0)] for name in ("color", "identity", "sharpness")}
    return {"ends": flat | ends, "curves": curves, "border_jump": 1.5}


def test_table_says_which_students_are_bounded() -> None:
    table = ablation_table({"steady": {"0": entry(color=(2.0, 2.1))}, "drifts": {"1": entry(sharpness=(0.8, 0.6))}})
    steady, drifts = table.splitlines()[2:]
    assert "2.00 → 2.10 (+5%)" in steady and "5%, bounded" in steady
    assert "(-25%)" in drifts and "25% |" in drifts
    # Both stay where they are once they got there.
    assert steady.endswith("0%, bounded | 1.50 |") and drifts.endswith("0%, bounded | 1.50 |")
    grows = entry()
    grows["curves"]["color"] = list(np.linspace(1.0, 3.0, 100))
    assert ablation_table({"grows": {"0": grows}}).splitlines()[2].endswith("% | 1.50 |")
    assert change((4.0, 3.0)) == -0.25


def test_lips_are_compared_with_the_true_opening_at_both_ends() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0, 1, 90 * 28)
    seen = np.concatenate([0.5 * true[: 60 * 28] + 0.2, rng.uniform(0, 1, 30 * 28)])
    first, last = lip_ends(seen, true, 28)
    assert first == pytest.approx(1.0)
    assert abs(last) < 0.2
    assert lip_ends(np.zeros(9 * 28), true, 28) == (0.0, 0.0)
