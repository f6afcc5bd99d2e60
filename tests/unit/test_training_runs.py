"""Training of the embedded model: optimiser, batches, losses and checkpoints on the smallest shapes that tell."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from livetalk_core.errors import ConfigError, TrainingError
from livetalk_core.models.transformer import LiveTalkTransformer3DModel
from livetalk_core.training.avatars.identity import HELD_OUT_SEED, require_trainable
from livetalk_core.training.embedded import stage1_model, train_vae
from livetalk_core.training.embedded.clips import ClipStore, open_clips, render_clips
from livetalk_core.training.embedded.latent_cache import (
    FEATURE_ROWS,
    LatentCache,
    by_latent,
    open_cache,
    window_rows,
    write_shards,
)
from livetalk_core.training.embedded.muon import Muon, orthogonalise
from livetalk_core.training.embedded.refit_audio import fit_features, refit
from livetalk_core.training.embedded.stage1_batch import BatchMaker, OwnMotion, Stage1Options
from livetalk_core.training.embedded.stage1_loss import stage1_loss
from livetalk_core.training.embedded.stage1_model import TRANSFORMER_CONFIG, Student
from livetalk_core.training.embedded.timed_run import Pace, TimedRun, cosine
from livetalk_core.training.embedded.train_stage1 import Stage1Task, Stage1Training, constant_then_linear
from livetalk_core.training.embedded.train_vae import VaeTask, VaeTraining
from livetalk_core.training.embedded.vae_crops import random_crops, region_weights
from livetalk_core.training.embedded.vae_model import new_vae
from livetalk_core.training.trainer.metrics import read_metrics
from livetalk_core.training.trainer.ranks import Ranks, join_ranks

pytestmark = pytest.mark.unit

SMALL = TRANSFORMER_CONFIG | {"dim": 48, "num_heads": 2, "num_layers": 1, "ffn_dim": 64}


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    with join_ranks("cpu") as ranks:
        yield ranks


def small_cache(clips: int = 3) -> LatentCache:
    torch.manual_seed(0)
    return LatentCache(
        chunks=torch.randn(clips, 2, 16, 9, 16, 16).bfloat16() * 3 + 1,
        references=torch.randn(clips, 16, 9, 16, 16).bfloat16(),
        features=torch.randn(clips, 2, FEATURE_ROWS, 3, 96).bfloat16(),
        pictures=torch.randint(0, 255, (clips, 128, 128, 3), dtype=torch.uint8),
        closures=torch.zeros(clips, 2, 9),
        blinks=torch.zeros(clips, 2, 9),
    )


def test_orthogonalise_levels_the_singular_values() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(24, 64) @ torch.diag(torch.logspace(-1, 1, 64))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.max() < 1.3
    assert values.min() > 0.5


def test_muon_descends() -> None:
    torch.manual_seed(0)
    target = torch.randn(12, 8)
    weight = nn.Parameter(torch.zeros(12, 8))
    optimizer = Muon([weight], lr=0.2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (weight - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


class LineTask:
    """y = ax + b by Muon and AdamW; `bad` steps have a gradient that is no number."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        torch.manual_seed(3)
        self.network = nn.Linear(6, 6)
        self.optimizers = [Muon([self.network.weight]), torch.optim.AdamW([self.network.bias])]
        self.facts = {"line": 1}
        self.bad, self.calls = bad, 0
        self.exported: dict[str, torch.Tensor] = {}

    def loss(self, rng: np.random.Generator, share: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        x = torch.from_numpy(rng.standard_normal((4, 6))).float() + torch.randn(4, 6)
        loss = self.network(x).square().mean() * (math.nan if self.calls in self.bad else 1.0)
        self.calls += 1
        return loss, {"twice": 2 * loss.detach()}

    def export(self, average: dict[str, torch.Tensor]) -> None:
        self.exported = average


def line_run(out: Path, ranks: Ranks, task: LineTask | None = None, minutes: float = 100.0) -> TimedRun:
    config = VaeTraining()
    pace = Pace(minutes=minutes, learning_rate=0.01, warm_up=2, average_decay=0.9)
    return TimedRun(task or LineTask(), out, ranks, pace, config)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, ranks: Ranks) -> None:
    straight, stopped = line_run(tmp_path / "a", ranks), line_run(tmp_path / "b", ranks)
    for run in (straight, stopped):
        run.update(0.1)
        run.update(0.2)
    stopped.save()
    resumed = line_run(tmp_path / "b", ranks)
    resumed.resume()
    assert resumed.step == resumed.updates == 2
    for run in (straight, resumed):
        run.update(0.3)
    for name, value in straight._tensors().items():
        assert torch.equal(value, resumed._tensors()[name]), name


def test_a_run_ends_with_its_time_and_leaves_metrics_and_average(tmp_path: Path, ranks: Ranks) -> None:
    run = line_run(tmp_path, ranks, minutes=0.002)
    run.run()
    assert isinstance(run.task, LineTask)
    assert set(run.task.exported) == {"weight", "bias"}
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    assert last["iteration"] == run.step > 0
    assert last["twice"] == pytest.approx(2 * last["loss"], rel=1e-4)
    with pytest.raises(TrainingError, match="holds a run already"):
        line_run(tmp_path, ranks).run()


def test_runs_of_other_settings_or_another_start_are_not_continued(tmp_path: Path, ranks: Ranks) -> None:
    run = line_run(tmp_path, ranks)
    run.update(0.1)
    run.save()
    other = line_run(tmp_path, ranks)
    other.settings = VaeTraining(minutes=1, seed=5)
    with pytest.raises(TrainingError, match=r"settings\.seed = 0, this run has 5"):
        other.resume()
    other.settings = VaeTraining(minutes=1)
    assert isinstance(other.task, LineTask)
    other.task.facts = {"line": 2}
    with pytest.raises(TrainingError, match=r"task\.line = 1, this run has 2"):
        other.resume()
    # Checkpoints of the time before facts were written down.
    path = tmp_path / "checkpoints" / "0000001" / "checkpoint.json"
    facts = json.loads(path.read_text())
    del facts["task"]
    facts["settings"]["minutes"] = 48
    path.write_text(json.dumps(facts))
    other.resume()


def test_shards_of_other_clips_or_encoders_are_written_again(tmp_path: Path, ranks: Ranks) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "weights").write_bytes(b"one")
    made: list[int] = []

    def encode(first: int, last: int) -> dict[str, torch.Tensor]:
        made.append(first)
        return {"features": torch.full((last - first, 2), float(len(made)))}

    def write(value: float = 0.0) -> None:
        samples = np.full((150, 4), value, np.float16)
        empty = np.zeros((150, 1), np.uint8)
        clips = ClipStore(empty, empty, samples, empty, empty)
        write_shards(tmp_path / "cache", "sound", clips, encoder, encode, ranks)

    write()
    write()
    assert made == [0, 100]
    (encoder / "weights").write_bytes(b"another")
    write()
    assert made == [0, 100] * 2
    write(1.0)
    assert made == [0, 100] * 3


def test_people_kept_for_evaluation_are_not_learnt_from(tmp_path: Path) -> None:
    require_trainable(HELD_OUT_SEED - 3, 3)
    with pytest.raises(ConfigError, match="are not those of 4 people"):
        render_clips(tmp_path / "bank", tmp_path / "clips", 4, first_seed=HELD_OUT_SEED - 3)
    assert not (tmp_path / "clips").exists()


def test_a_gradient_that_is_no_number_changes_nothing(tmp_path: Path, ranks: Ranks) -> None:
    run = line_run(tmp_path, ranks, LineTask(bad=(1,)))
    run.update(0.1)
    before = {name: value.clone() for name, value in run._tensors().items()}
    run.update(0.2)
    assert (run.step, run.updates) == (2, 1)
    assert all(torch.equal(before[name], value) for name, value in run._tensors().items())


def test_what_is_missing_is_named(tmp_path: Path, ranks: Ranks) -> None:
    with pytest.raises(TrainingError, match="no checkpoint"):
        line_run(tmp_path, ranks).run(resume=True)
    with pytest.raises(TrainingError, match=r"clips\.json"):
        open_clips(tmp_path)
    with pytest.raises(TrainingError, match="no encoded frames"):
        open_cache(tmp_path)
    with pytest.raises(SystemExit, match=r"error: .*clips\.json"):
        train_vae.main(["--clips", str(tmp_path), "--out", str(tmp_path / "vae")])


def test_learning_rates_end_low_and_never_below() -> None:
    assert cosine(0.0) == constant_then_linear(0.0) == constant_then_linear(0.5) == 1.0
    assert cosine(1.0) == pytest.approx(0.03)
    assert constant_then_linear(1.0) == pytest.approx(0.03)


def test_windows_clamp_at_the_newest_frame() -> None:
    rows = window_rows()
    assert rows.shape == (33, 5)
    assert rows[0].tolist() == [0, 1, 2, 3, 4]
    assert rows[-1].tolist() == [32, 33, 34, 34, 34]


def test_batches_keep_motion_clean_and_levels_in_order() -> None:
    maker = BatchMaker(small_cache(), Stage1Options(noisy_motion=0.0), seed=1)
    for _ in range(5):
        batch = maker.draw(4)
        noisy = batch.paste(torch.full_like(batch.clean, 7.0))
        known = batch.known.bool().expand_as(noisy)
        assert torch.allclose(noisy[known], batch.clean[known])
        assert (noisy[~known] == 7).all()
        assert ((batch.level > 0) & (batch.level <= 1)).all()
        assert (batch.previous >= batch.level).all()
        assert batch.windows.shape == (4, 33, 5, 3, 96)
    assert abs(float(batch.clean.mean())) < 0.1
    assert float(batch.clean.std()) == pytest.approx(1.0, abs=0.1)


def test_marked_lips_and_eyes_weigh_more_and_motion_frames_nothing() -> None:
    cache = small_cache()
    cache.closures[:, :, 4] = 1
    cache.blinks[:, :, 6] = 1
    batch = BatchMaker(cache, Stage1Options(closure_weight=2.0, blink_weight=3.0), seed=1).draw(4)
    lips, eyes, rest = batch.weights[:, 0, :, 10, 8], batch.weights[:, 0, :, 6, 8], batch.weights[:, 0, :, 0, 0]
    assert (lips[:, 4] == 2 * lips[:, 3]).all()
    assert torch.allclose(eyes[:, 6], 3 * eyes[:, 3])
    assert torch.equal(rest, 1 - batch.known[:, 0, :, 0, 0])
    assert (lips[:, 3:] > eyes[:, 3:].minimum(lips[:, 3:]) - 1e-6).all()


def test_some_samples_hear_nothing() -> None:
    maker = BatchMaker(small_cache(), Stage1Options(silent_audio=0.5), seed=1)
    heard = torch.cat([maker.draw(8).windows.flatten(1).any(1) for _ in range(5)])
    assert 10 < int(heard.sum()) < 30
    everything = BatchMaker(small_cache(), Stage1Options(silent_audio=0.0), seed=1).draw(8)
    assert everything.windows.flatten(1).any(1).all()


def test_marks_reach_the_latent_frames_that_show_them() -> None:
    marks = torch.zeros(1, 61)
    marks[0, [0, 4, 30]] = 1
    first, second = by_latent(marks)[0].tolist()
    assert first == [1, 1, 0, 0, 0, 0, 0, 0, 1]
    assert second == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_a_refitted_transformer_hears_the_same() -> None:
    """Where the new features are a linear function of the old ones and the other way round."""
    transformer = LiveTalkTransformer3DModel(**SMALL | {"audio_channels": 8})
    transformer.init_weights(0)
    torch.manual_seed(1)
    old = torch.randn(400, 3, 8)
    turn = torch.randn(36, 24)
    new = (old.flatten(1) @ turn.T + torch.randn(36)).unflatten(1, (3, 12))
    matrix, bias, explained = fit_features(new, old)
    changed = refit(transformer, matrix, bias, channels=12)
    assert explained > 0.99
    rows = torch.randint(400, (1, 33, 5))
    with torch.no_grad():
        torch.testing.assert_close(changed.audio_proj(new[rows]), transformer.audio_proj(old[rows]), rtol=0, atol=0.05)


def test_own_motion_replaces_the_true_one() -> None:
    maker = BatchMaker(small_cache(), Stage1Options(own_motion=1.0), seed=1)
    own = OwnMotion(capacity=1)
    own.put(0, torch.full((16, 2, 16, 16), 5.0))
    own.put(2, torch.full((16, 2, 16, 16), 6.0))
    batch = maker.draw(4, own)
    assert list(own.latents) == [2]
    assert (batch.motion[:, :, :2] == 6).all()
    assert (batch.known[:, 0, :, 0, 0].sum(1) == 2).all()


@pytest.mark.parametrize("look_back", [False, True])
def test_stage1_learns_a_batch(look_back: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage1_model, "TRANSFORMER_CONFIG", SMALL)
    student = Student(seed=0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        maker = BatchMaker(small_cache(2), Stage1Options(), seed=5)
        batch = maker.draw(2)
        loss, _ = stage1_loss(student, batch, maker, Stage1Training.temporal_weight, look_back)
        student.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_new_vae_starts_as_an_image_vae() -> None:
    """A still picture and the same picture in motionless video code alike, before any training."""
    from livetalk_core.models.vae import WanVideoVAE

    vae = WanVideoVAE(new_vae(0).eval())
    picture = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        still = vae.moments(picture)
        moving = vae.moments(picture.expand(-1, -1, 5, -1, -1))
    assert torch.allclose(moving[:, :, 0], still[:, :, 0], atol=1e-5)
    drift = (moving[:, :, 1] - still[:, :, 0]).norm() / still.norm()
    assert drift < 0.2


def test_vae_loss_weighs_regions() -> None:
    weights = region_weights(3.0)
    assert weights.shape == (128, 128)
    assert set(weights.unique().tolist()) == {1.0, 3.0}
    assert float(weights[90, 64]) == 3.0
    assert float(weights[10, 10]) == 1.0


def clip_store(frames: np.ndarray) -> ClipStore:
    return ClipStore(
        frames,
        frames[:, 0],
        np.zeros((2, 640), np.float16),
        np.zeros((2, 228, 4), np.float32),
        np.zeros((2, 61), np.float32),
    )


def test_crops_come_from_the_clips() -> None:
    store = clip_store(np.full((2, 61, 128, 128, 3), 200, np.uint8))
    weights = region_weights(3.0).numpy()
    video, maps = random_crops(store, weights, np.random.default_rng(0), 3, 64, 5)
    assert video.shape == (3, 3, 5, 64, 64)
    assert maps.shape == (3, 1, 1, 64, 64)
    assert torch.allclose(video, torch.full_like(video, 200 / 127.5 - 1))


def test_vae_and_stage1_resume_what_they_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: Ranks) -> None:
    store = clip_store(np.random.default_rng(0).integers(0, 255, (2, 61, 128, 128, 3), dtype=np.uint8))
    monkeypatch.setattr(train_vae, "STAGES", (train_vae.Stage(1.01, 1, 64, 1),))
    vae_config = VaeTraining(minutes=100)

    def vae_run() -> TimedRun:
        return TimedRun(VaeTask(store, tmp_path, vae_config, ranks), tmp_path, ranks, vae_config.pace, vae_config)

    trained, again = vae_run(), vae_run()
    trained.update(0.0)
    trained.save()
    trained.task.export(trained.average.state)
    again.resume()
    assert again.step == 1
    for mine, theirs in zip(trained.task.network.parameters(), again.task.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)

    monkeypatch.setattr(stage1_model, "TRANSFORMER_CONFIG", SMALL)
    config, out = Stage1Training(minutes=100, batch=1), tmp_path / "stage1"
    start = Student(config.seed).transformer.head.head.weight

    def stage1_run(start: Path | None = None) -> tuple[Stage1Task, TimedRun]:
        task = Stage1Task(small_cache(), tmp_path / "vae", out, config, ranks, start)
        return task, TimedRun(task, out, ranks, config.pace, config)

    first, run = stage1_run()
    run.update(0.0)
    run.save()
    second, resumed = stage1_run()
    resumed.resume()
    assert resumed.step == 1
    weight = first.network.transformer.head.head.weight
    assert torch.equal(weight, second.network.transformer.head.head.weight)
    assert not torch.equal(weight, start)
    first.export(run.average.state)
    third, _ = stage1_run(start=out)
    average = run.average.state["transformer.head.head.weight"]
    assert torch.equal(third.network.transformer.head.head.weight, average)
    assert torch.allclose(third.batches.mean, first.batches.mean)
