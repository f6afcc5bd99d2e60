"""The training loop, in a world of one rank: exact resume, accumulation, checkpoints that survive, refusals that name what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from training_data import recipe, write_prepared

from livetalk_core.errors import DeviceError, MissingDependencyError, OutputError, TrainingError
from livetalk_core.loading import ModelParts, load_model, open_parts
from livetalk_core.training import start
from livetalk_core.training.recipes import TrainingRecipe, change_recipe
from livetalk_core.training.start import RunRequest, build_trainer, export_run, run_training
from livetalk_core.training.trainer import checkpoint
from livetalk_core.training.trainer.checkpoint import newest_checkpoint, stored_tensors
from livetalk_core.training.trainer.draws import Draws, Purpose
from livetalk_core.training.trainer.loop import Trainer
from livetalk_core.training.trainer.metrics import read_metrics
from livetalk_core.training.trainer.ranks import Ranks, join_ranks
from livetalk_core.training.trainer.sharding import whole

pytestmark = [pytest.mark.dist, pytest.mark.timeout(600)]


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with join_ranks("cpu") as joined:
        yield joined


@pytest.fixture
def request_for(tiny_model_folder: Path, prepared_folder: Path, tmp_path: Path) -> Any:
    def make(settings: TrainingRecipe, name: str = "run", resume: bool = False) -> RunRequest:
        return RunRequest(settings, tiny_model_folder, prepared_folder, tmp_path / name, resume)

    return make


def losses(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in read_metrics(folder / "metrics.jsonl")]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: whole(value).clone() for name, value in trainer._tensors().items()}


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_resumed_run_is_the_uninterrupted_one(stage: str, request_for: Any, ranks: Ranks) -> None:
    run_training(request_for(recipe(stage, iterations=5), "straight"), ranks)
    run_training(request_for(recipe(stage, iterations=3), "broken"), ranks)
    run_training(request_for(recipe(stage, iterations=5), "broken", resume=True), ranks)
    straight, broken = (request_for(recipe(stage), name).out for name in ("straight", "broken"))
    assert len(losses(straight)) == 5
    assert losses(straight) == losses(broken)
    ours, theirs = (dict(stored_tensors(newest_checkpoint(out / "checkpoints"), "")) for out in (straight, broken))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (straight / "curves.png").stat().st_size > 1000


def test_fake_score_begins_as_the_student_and_not_as_the_teacher(request_for: Any, ranks: Ranks) -> None:
    """It stands for what the student makes, from the first update on."""
    before = request_for(recipe("stage1", iterations=1), "other")
    run_training(before, ranks)
    export_run(before.out, before.model, before.out / "model")
    trainer = build_trainer(replace(request_for(recipe("stage2")), teacher=before.out / "model"), ranks)
    networks = trainer.method.networks
    every = [networks.trained["student"], networks.trained["fake_score"], networks.frozen["teacher"]]
    student, fake, teacher = ({n: whole(p) for n, p in each.network.named_parameters()} for each in every)
    assert all(torch.equal(student[name], fake[name]) for name in student)
    assert not all(torch.equal(student[name], teacher[name]) for name in student)


def test_fresh_weights_are_a_function_of_the_seed_alone(request_for: Any, ranks: Ranks) -> None:
    first, again, other = (
        weights(build_trainer(request_for(recipe("stage1", method__fresh=True, seed=seed)), ranks)) for seed in (3, 3, 4)
    )
    given = weights(build_trainer(request_for(recipe("stage1", seed=3)), ranks))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[n], other[n]) or torch.equal(first[n], given[n]) for n in first if n.endswith("self_attn.q.weight"))
    assert any(name.endswith("self_attn.q.weight") for name in first)


def test_micro_batches_are_one_batch(request_for: Any, ranks: Ranks) -> None:
    whole_batch = build_trainer(request_for(recipe("stage1", batch=4)), ranks)
    parts = build_trainer(request_for(recipe("stage1", batch=4, accumulate=2)), ranks)
    first, second = ([trainer.update() for _ in range(2)] for trainer in (whole_batch, parts))
    for ours, theirs in zip(first, second, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)


def test_checkpointed_activations_change_nothing(request_for: Any, ranks: Ranks) -> None:
    plain = build_trainer(request_for(recipe("stage1")), ranks).update()
    recomputed = build_trainer(request_for(recipe("stage1", checkpoint_activations=True)), ranks).update()
    assert plain == pytest.approx(recomputed, rel=1e-6)


def test_offloaded_networks_compute_the_same(request_for: Any, ranks: Ranks) -> None:
    recipes = [recipe("stage1", offload=value) for value in (False, True)]
    resident, offloaded = (build_trainer(request_for(settings), ranks) for settings in recipes)
    for _ in range(2):
        assert resident.update() == offloaded.update()


def test_bf16_is_near_fp32(request_for: Any, ranks: Ranks) -> None:
    full = build_trainer(request_for(recipe("stage1")), ranks).update()
    half = build_trainer(request_for(recipe("stage1", precision="bf16")), ranks).update()
    assert half["denoiser.loss"] == pytest.approx(full["denoiser.loss"], rel=0.05)
    assert half["denoiser.loss"] != full["denoiser.loss"]


def test_loss_that_is_no_number_stops_before_it_harms(request_for: Any, ranks: Ranks) -> None:
    run = request_for(recipe("stage1"))
    trainer = build_trainer(run, ranks)
    trainer.run()
    before = weights(trainer)
    good = trainer.method.step

    def broken(batch: Any, iteration: int) -> Any:
        found, outputs = good(batch, iteration)
        return {name: loss * float("nan") for name, loss in found.items()}, outputs

    trainer.method.step = broken  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"denoiser\.loss is nan in iteration 4") as caught:
        trainer.update()
    assert "learning rate" in caught.value.hint
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
    assert newest_checkpoint(run.out / "checkpoints").name == "0000004"


def test_full_disk_leaves_the_last_checkpoint(
    request_for: Any, ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = request_for(recipe("stage1", iterations=2))
    trainer = build_trainer(run, ranks)
    trainer.run()
    trainer.update()

    def full(*_: Any) -> None:
        raise OutputError("The disk is full: nothing was written.", "Free some space.")

    monkeypatch.setattr(checkpoint, "write_safetensors", full)
    with pytest.raises(OutputError, match="disk is full"):
        trainer.save()
    folder = run.out / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["0000002"]
    build_trainer(run, ranks).resume()


def test_damaged_checkpoint_gives_way_to_the_one_before(request_for: Any, ranks: Ranks) -> None:
    run = request_for(recipe("stage1"))
    run_training(run, ranks)
    file = run.out / "checkpoints" / "0000004" / "rank_00000.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    trainer = build_trainer(run, ranks)
    trainer.resume()
    assert trainer.iteration == 2


def test_checkpoint_of_other_settings_is_refused_by_name(request_for: Any, ranks: Ranks) -> None:
    run_training(request_for(recipe("stage1", iterations=2)), ranks)
    other = build_trainer(request_for(recipe("stage1", method__shift=3.0)), ranks)
    with pytest.raises(TrainingError, match=r"method\.shift = 5\.0, this run has 3\.0"):
        other.resume()
    with pytest.raises(TrainingError, match="holds a run already"):
        run_training(request_for(recipe("stage1")), ranks)


def test_run_interrupted_in_its_first_checkpoint_starts_again(request_for: Any, ranks: Ranks) -> None:
    run = request_for(recipe("stage1", iterations=2))
    (run.out / "checkpoints" / ".0000002.part").mkdir(parents=True)
    run_training(run, ranks)
    assert [path.name for path in (run.out / "checkpoints").iterdir()] == ["0000002"]


def test_other_teacher_or_data_cannot_be_slipped_in_when_a_run_goes_on(
    request_for: Any, ranks: Ranks, tmp_path: Path, tiny_model_folder: Path
) -> None:
    other = request_for(recipe("stage1", iterations=1), "other")
    run_training(other, ranks)
    export_run(other.out, other.model, tmp_path / "teacher")
    run = replace(request_for(recipe("stage2", iterations=1)), teacher=tmp_path / "teacher")
    run_training(run, ranks)
    longer = replace(run, recipe=recipe("stage2", iterations=2), resume=True)
    with pytest.raises(TrainingError, match="was written with teacher = "):
        run_training(replace(longer, teacher=None), ranks)
    data = write_prepared(tmp_path / "data", tiny_model_folder, clips=5)
    with pytest.raises(TrainingError, match=r"was written with data = '4 clips .*, this run has '5 clips "):
        run_training(replace(longer, data=data), ranks)
    # Checkpoints of the time before these were written down.
    path = newest_checkpoint(run.out / "checkpoints") / "checkpoint.json"
    facts = json.loads(path.read_text())
    del facts["run"]["teacher"], facts["run"]["data"]
    facts["run"]["run"]["accumulate"] = 1
    path.write_text(json.dumps(facts))
    run_training(replace(longer, recipe=recipe("stage2", iterations=2, accumulate=2)), ranks)


def test_teacher_of_another_latent_space_is_refused(
    request_for: Any, ranks: Ranks, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = start.open_parts

    def opened(path: Path | None, *rest: Any) -> Any:
        found = real(tiny_model_folder, *rest)
        return found if path == tiny_model_folder else replace(found, encoders="others")

    monkeypatch.setattr(start, "open_parts", opened)
    with pytest.raises(TrainingError, match="other encoders than"):
        build_trainer(replace(request_for(recipe("stage2")), teacher=Path("teacher")), ranks)


@pytest.mark.parametrize("device", ["cuda:1", "tpu", "cuda"])
def test_devices_that_training_cannot_take_are_refused(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceError), join_ranks(device):
        pass


def test_models_of_8_bits_are_exported_in_16(
    request_for: Any, ranks: Ranks, tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = request_for(recipe("stage1", iterations=1))
    run_training(run, ranks)
    with monkeypatch.context() as patch:
        patch.setattr(ModelParts, "stored_dtype", torch.float8_e4m3fn)
        export_run(run.out, tiny_model_folder, tmp_path / "model")
    assert open_parts(tmp_path / "model").stored_dtype is torch.bfloat16


def test_data_of_other_encoders_are_refused(
    request_for: Any, ranks: Ranks, tmp_path: Path, prepared_folder: Path
) -> None:
    copy = shutil.copytree(prepared_folder, tmp_path / "copy")
    index = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(index | {"encoders": "others"}))
    with pytest.raises(TrainingError, match="other encoders"):
        build_trainer(replace(request_for(recipe("stage1")), data=copy), ranks)


def test_batch_that_does_not_divide_is_refused(request_for: Any, ranks: Ranks) -> None:
    run = request_for(recipe("stage1", batch=3))
    with pytest.raises(TrainingError, match="2 ranks"):
        build_trainer(run, replace(ranks, world=2))


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_exported_model_loads_and_is_the_averaged_network(
    stage: str, request_for: Any, ranks: Ranks, tiny_model_folder: Path, tmp_path: Path
) -> None:
    run = request_for(recipe(stage, iterations=2))
    path = run_training(run, ranks)
    network = export_run(run.out, tiny_model_folder, tmp_path / "model")
    loaded = load_model(tmp_path / "model", "cpu", "fp32").transformer.state_dict()
    stored = open_parts(tiny_model_folder).stored_dtype
    assert open_parts(tmp_path / "model").stored_dtype is stored
    saved = dict(stored_tensors(path, f"{network}.average.transformer."))
    first = dict(open_parts(tiny_model_folder).plan.tensors(torch.device("cpu")))
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name].to(stored).float()) for name in saved)
    assert any(not torch.equal(saved[name], first[name]) for name in saved)
    with pytest.raises(OutputError, match="exists already"):
        export_run(run.out, tiny_model_folder, tmp_path / "model")


def test_draws_do_not_depend_on_how_samples_are_shared() -> None:
    together = Draws(7, 3, range(4))
    apart = [Draws(7, 3, range(0, 2)), Draws(7, 3, range(2, 4))]
    assert torch.equal(together.normal(Purpose.NOISE, (3,)), torch.cat([d.normal(Purpose.NOISE, (3,)) for d in apart]))
    assert {d.shared(Purpose.CHUNKS, 1000) for d in (together, *apart)} == {together.shared(Purpose.CHUNKS, 1000)}
    assert not torch.equal(together.normal(Purpose.NOISE, (3,)), Draws(7, 4, range(4)).normal(Purpose.NOISE, (3,)))
    assert not torch.equal(together.uniform(Purpose.LEVEL), together.uniform(Purpose.DROP))


def test_settings_change_by_path_and_are_checked() -> None:
    from livetalk_core.errors import ConfigError

    changed = change_recipe(recipe("stage2"), ["run.batch=6", "method.times=full", "method.student.betas=[0.1,0.2]"])
    assert (changed.run.batch, changed.method.times, changed.method.student.betas) == (6, "full", (0.1, 0.2))
    for wrong, message in (("run.bach=1", r"run\.batch"), ("run.batch", "no setting"), ("run.batch=0", "batch is 0")):
        with pytest.raises(ConfigError, match=message):
            change_recipe(recipe("stage2"), [wrong])


def test_a_torch_that_cannot_shard_on_a_cpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu.Stream, "record_event")
    with pytest.raises(MissingDependencyError, match="cannot train on a CPU"), join_ranks("cpu"):
        pass
