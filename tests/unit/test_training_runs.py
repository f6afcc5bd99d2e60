"""Training of the embedded model: optimiser, batches, losses and checkpoints on the smallest shapes that tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from livetalk_core.errors import TrainingError
from livetalk_core.models.transformer import LiveTalkTransformer3DModel
from livetalk_core.training.embedded import train_stage1, train_vae
from livetalk_core.training.embedded.clips import open_clips
from livetalk_core.training.embedded.latent_cache import FEATURE_ROWS, LatentCache, by_latent, open_cache, window_rows
from livetalk_core.training.embedded.muon import Muon, orthogonalise
from livetalk_core.training.embedded.refit_audio import fit_features, refit
from livetalk_core.training.embedded.run_state import (
    Budget,
    MovingAverage,
    cosine,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizers,
    save_checkpoint,
)
from livetalk_core.training.embedded.stage1_batch import BatchMaker, OwnMotion, Stage1Options

pytestmark = pytest.mark.unit


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


def test_optimizer_state_survives_a_checkpoint(tmp_path: Path) -> None:
    """Two steps, save, load, one step = three steps."""

    def build() -> tuple[nn.Linear, list[torch.optim.Optimizer]]:
        torch.manual_seed(3)
        layer = nn.Linear(6, 6)
        return layer, [Muon([layer.weight], lr=0.01), torch.optim.AdamW([layer.bias], lr=0.01)]

    def step(layer: nn.Linear, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
        x = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed))
        layer.zero_grad()
        layer(x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()

    straight, straight_optimizers = build()
    for seed in range(3):
        step(straight, straight_optimizers, seed)
    first, first_optimizers = build()
    for seed in range(2):
        step(first, first_optimizers, seed)
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, dict(first.state_dict()) | optimizer_tensors(first_optimizers), {"step": 2})
    tensors, facts = load_checkpoint(path)
    second, second_optimizers = build()
    second.load_state_dict({k: tensors[k] for k in ("weight", "bias")})
    restore_optimizers(second_optimizers, tensors)
    step(second, second_optimizers, 2)
    assert facts == {"step": 2}
    assert torch.equal(second.weight, straight.weight)
    assert torch.equal(second.bias, straight.bias)


def test_missing_checkpoint_and_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match=r"clips\.json"):
        open_clips(tmp_path)
    with pytest.raises(TrainingError, match="no encoded frames"):
        open_cache(tmp_path)


def test_moving_average_follows_slowly() -> None:
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.0)
    average = MovingAverage(layer, decay=0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for _ in range(400):
        average.update()
    assert 0.99 < float(average.state["weight"]) <= 1.0
    assert Budget(1.0, spent=30.0).share == pytest.approx(0.5, abs=0.02)
    assert cosine(0.0) == 1.0
    assert cosine(1.0) == pytest.approx(0.03)


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
    tiny = {"dim": 48, "num_heads": 2, "num_layers": 1, "ffn_dim": 64, "audio_channels": 8}
    transformer = LiveTalkTransformer3DModel(**train_stage1.TRANSFORMER_CONFIG | tiny)
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
    tiny = {"dim": 48, "num_heads": 2, "num_layers": 1, "ffn_dim": 64}
    monkeypatch.setattr(train_stage1, "TRANSFORMER_CONFIG", train_stage1.TRANSFORMER_CONFIG | tiny)
    student = train_stage1.Student(seed=0)
    config = train_stage1.Stage1Training()
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        maker = BatchMaker(small_cache(2), Stage1Options(), seed=5)
        batch = maker.draw(2)
        loss, _ = train_stage1.stage1_loss(student, batch, maker, config, look_back)
        student.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_new_vae_starts_as_an_image_vae() -> None:
    """A still picture and the same picture in motionless video code alike, before any training."""
    from livetalk_core.models.vae import WanVideoVAE

    vae = WanVideoVAE(train_vae.new_vae(0).eval())
    picture = torch.rand(1, 3, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        still = vae.moments(picture)
        moving = vae.moments(picture.expand(-1, -1, 5, -1, -1))
    assert torch.allclose(moving[:, :, 0], still[:, :, 0], atol=1e-5)
    drift = (moving[:, :, 1] - still[:, :, 0]).norm() / still.norm()
    assert drift < 0.2


def test_vae_loss_weighs_regions() -> None:
    weights = train_vae.region_weights(3.0)
    assert weights.shape == (128, 128)
    assert set(weights.unique().tolist()) == {1.0, 3.0}
    assert float(weights[90, 64]) == 3.0
    assert float(weights[10, 10]) == 1.0


def test_crops_come_from_the_clips() -> None:
    from livetalk_core.training.embedded.clips import ClipStore

    frames = np.full((2, 61, 128, 128, 3), 200, np.uint8)
    store = ClipStore(
        frames,
        frames[:, 0],
        np.zeros((2, 640), np.float16),
        np.zeros((2, 228, 4), np.float32),
        np.zeros((2, 61), np.float32),
    )
    weights = train_vae.region_weights(3.0).numpy()
    video, maps = train_vae.random_crops(store, weights, np.random.default_rng(0), 3, 64, 5)
    assert video.shape == (3, 3, 5, 64, 64)
    assert maps.shape == (3, 1, 1, 64, 64)
    assert torch.allclose(video, torch.full_like(video, 200 / 127.5 - 1))


def test_trainers_resume_what_they_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from livetalk_core.training.embedded.clips import ClipStore

    frames = np.random.default_rng(0).integers(0, 255, (2, 61, 128, 128, 3), dtype=np.uint8)
    store = ClipStore(
        frames,
        frames[:, 0],
        np.zeros((2, 640), np.float16),
        np.zeros((2, 228, 4), np.float32),
        np.zeros((2, 61), np.float32),
    )
    monkeypatch.setattr(train_vae, "STAGES", (train_vae.Stage(1.01, 1, 64, 1),))
    vae_config = train_vae.VaeTraining(minutes=100)
    trainer = train_vae.VaeTrainer(store, tmp_path, vae_config)
    trainer._update(np.random.default_rng(0), 0.0)
    trainer.state.save(vae_config)
    trainer.export()
    again = train_vae.VaeTrainer(store, tmp_path, vae_config)
    again.state.resume()
    assert again.state.step == 1
    assert all(torch.equal(a, b) for a, b in zip(trainer.module.parameters(), again.module.parameters(), strict=True))

    config = train_stage1.Stage1Training(minutes=100, batch=1)
    out = tmp_path / "stage1"
    out.mkdir()
    first = train_stage1.Stage1Trainer(small_cache(), tmp_path / "vae", out, config)
    first._update(0.0)
    first.state.save(config)
    second = train_stage1.Stage1Trainer(small_cache(), tmp_path / "vae", out, config)
    second.state.resume()
    assert second.state.step == 1
    assert torch.equal(first.student.transformer.head.head.weight, second.student.transformer.head.head.weight)
    assert not torch.equal(first.student.transformer.head.head.weight, torch.zeros(64, 192))
    first.export()
    third = train_stage1.Stage1Trainer(small_cache(), tmp_path / "vae", out, config, start=out)
    average = first.state.average.state["transformer.head.head.weight"]
    assert torch.equal(third.student.transformer.head.head.weight, average)
    assert torch.allclose(third.batches.mean, first.batches.mean)
