"""Stage 2: whose turn it is, what each network learns, where the student comes to rest."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from denoisers import Watched, denoiser, draw
from torch import Tensor, nn
from training_data import GEOMETRY, recipe

from livetalk_core.models.bundle import ModelBundle
from livetalk_core.training.data.prepared import PreparedSet
from livetalk_core.training.methods.denoiser import Conditioning
from livetalk_core.training.methods.losses import matching_gradient, surrogate
from livetalk_core.training.methods.stage2 import FAKE_SCORE, STUDENT, Stage2
from livetalk_core.training.recipes import Stage2Config
from livetalk_core.training.trainer.draws import Draws

pytestmark = pytest.mark.unit


def stage2(tiny_model: ModelBundle, same: bool = False, **changes: Any) -> Stage2:
    settings = recipe("stage2", **{f"method__{key}": value for key, value in changes.items()}).method
    assert isinstance(settings, Stage2Config)
    seeds = (None, None, None) if same else (1, 2, 3)
    return Stage2(*(denoiser(tiny_model, seed) for seed in seeds), tiny_model.vae, GEOMETRY, settings, seed=0)


def test_surrogate_has_the_matching_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    student, fake, real = (torch.randn(2, 4, 3, 2, 2, generator=generator) for _ in range(3))
    student.requires_grad_()
    frames = torch.tensor([0.0, 1.0, 1.0]).view(1, 1, 3, 1, 1)
    wanted = matching_gradient(student, fake, real, frames).detach()
    surrogate(student, wanted, frames).sum().backward()
    counted = frames.expand_as(student)[0].sum()
    assert torch.allclose(student.grad, wanted * frames / counted, atol=1e-7)
    distance = (student - real).abs()[:, :, 1:].flatten(1).mean(1)
    assert torch.allclose(wanted * distance.view(2, 1, 1, 1, 1), fake - real, atol=1e-6)


def test_student_rests_where_fake_score_and_teacher_agree(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    """Equal networks without guidance: nothing to learn, whatever the student makes."""
    method = stage2(tiny_model, same=True, audio_guidance=1.0, text_guidance=1.0)
    losses, facts = method.step(draw(prepared, chunks=method.chunks(0)), 0)
    losses[STUDENT].backward()
    assert float(losses[STUDENT].detach()) < 1e-8
    assert float(facts["student.gap"]) < 1e-6
    largest = max(float(p.grad.abs().max()) for p in method.student.parameters() if p.grad is not None)
    assert largest < 1e-6


def test_each_turn_moves_one_network(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    method = stage2(tiny_model, critic_updates=2)
    turns = []
    for iteration in range(6):
        batch = draw(prepared, chunks=method.chunks(iteration), iteration=iteration)
        losses, _ = method.step(batch, iteration)
        (name,) = losses
        losses[name].backward()
        turns.append(name)
        networks = {STUDENT: method.student, FAKE_SCORE: method.fake_score, "teacher": method.teacher}
        moved = {key for key, network in networks.items() if any(p.grad is not None for p in network.parameters())}
        assert moved == {name}
        for network in networks.values():
            network.zero_grad()
    assert turns == [STUDENT, FAKE_SCORE, FAKE_SCORE] * 2


def test_fake_score_learns_what_the_student_makes(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    method = stage2(tiny_model, max_chunks=1)
    optimizer = torch.optim.AdamW(method.fake_score.parameters(), lr=3e-3)
    found = []
    for _ in range(25):
        losses, _ = method.step(draw(prepared, iteration=1), 1)
        optimizer.zero_grad()
        losses[FAKE_SCORE].backward()
        optimizer.step()
        found.append(float(losses[FAKE_SCORE].detach()))
    assert found[-1] < 0.8 * found[0]


class PointMass(nn.Module):
    """The exact denoiser of a distribution that has only one video: all latents are `value`."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
        return (latents - self.value) * 1000 / level.view(-1, 1, 1, 1, 1)


def test_student_moves_to_the_teachers_distribution(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    """Student and fake score in turns: what the student makes becomes what the teacher knows, not what it was."""
    method = stage2(tiny_model, max_chunks=1, audio_guidance=1.0, text_guidance=1.0, critic_updates=2)
    method.student, method.fake_score, method.teacher = (PointMass(v) for v in (-0.5, 0.0, 0.7))  # type: ignore[assignment]
    networks = {STUDENT: method.student, FAKE_SCORE: method.fake_score}
    rates = {STUDENT: 0.04, FAKE_SCORE: 0.1}
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=rates[name], betas=(0.0, 0.9))
        for name, network in networks.items()
    }
    for iteration in range(240):
        losses, _ = method.step(draw(prepared, iteration=iteration), iteration)
        for name, loss in losses.items():
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
    assert float(method.student.value.detach()) == pytest.approx(0.7, abs=0.15)  # type: ignore[attr-defined]
    assert float(method.fake_score.value.detach()) == pytest.approx(0.7, abs=0.15)  # type: ignore[attr-defined]


@pytest.mark.parametrize("noisy", [False, True])
def test_teacher_sees_motion_latents_as_the_recipe_says(
    noisy: bool, tiny_model: ModelBundle, prepared: PreparedSet
) -> None:
    method = stage2(tiny_model, noisy_teacher_motion=noisy, audio_guidance=1.0, text_guidance=1.0)
    watched = Watched(method.teacher)
    method.teacher = watched  # type: ignore[assignment]
    batch = draw(prepared, chunks=1)
    method.step(batch, 0)
    latents, _, _ = watched.seen[0]
    clean = torch.equal(latents[:, :, :1], batch.latents[:, 0, :, :1])
    assert clean != noisy


def test_motion_alignment_reaches_the_motion_frames(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    batch = draw(prepared, chunks=1)
    plain, _ = stage2(tiny_model).step(batch, 0)
    pulled, facts = stage2(tiny_model, motion_alignment=2.0).step(batch, 0)
    # One of three latent frames is known: weight 2 times 1 / 2.
    alignment = float(facts["student.alignment"])
    assert float((pulled[STUDENT] - plain[STUDENT]).detach()) == pytest.approx(alignment, rel=1e-4)
    assert alignment > 0


def test_probe_levels_lie_within_the_students_step(tiny_model: ModelBundle) -> None:
    method = stage2(tiny_model)
    draws = Draws(0, 0, range(200))
    levels = [method.probe_levels(exit_step, draws) for exit_step in range(2)]
    high, low = method.rollout.levels[:2]
    assert (levels[0] <= high).all() and (levels[0] >= low).all()
    assert (levels[1] <= low).all() and float(levels[1].min()) >= 20
    assert float(levels[0].max()) <= 980
    full = stage2(tiny_model, times="full").probe_levels(0, draws)
    assert float(full.min()) < float(low) < float(full.max())


def test_chunk_counts_are_shared_and_cover_their_range(tiny_model: ModelBundle) -> None:
    method, other = stage2(tiny_model), stage2(tiny_model)
    counts = [method.chunks(iteration) for iteration in range(60)]
    assert set(counts) == {1, 2, 3}
    assert counts == [other.chunks(iteration) for iteration in range(60)]
