"""Both stages' methods: the rollout is the engine's, the losses are the formulas, nothing else carries a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from training_data import GEOMETRY, recipe

from livetalk_core.chunking import chunk_span
from livetalk_core.config import CorrectionConfig, SamplerConfig, StreamConfig
from livetalk_core.engine import Engine
from livetalk_core.engine.constants import stream_constants
from livetalk_core.engine.step import render
from livetalk_core.errors import ConfigError
from livetalk_core.loading import load_model
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.models.encoders import image_features
from livetalk_core.sampling import RecordedNoise, denoise_step
from livetalk_core.telemetry import StageTimer
from livetalk_core.training.data.batches import Batch, PreparedBatches
from livetalk_core.training.data.prepared import PreparedSet
from livetalk_core.training.methods.denoiser import Conditioning, Denoiser, clean_estimate
from livetalk_core.training.methods.guidance import guidance_terms, guided_bundle, guided_estimate
from livetalk_core.training.methods.losses import frame_mean, matching_gradient, surrogate
from livetalk_core.training.methods.rollout import Rollout, chunk_conditioning
from livetalk_core.training.methods.stage1 import NETWORK, Stage1
from livetalk_core.training.methods.stage2 import FAKE_SCORE, STUDENT, Stage2
from livetalk_core.training.recipes import RolloutConfig, Stage1Config, Stage2Config
from livetalk_core.training.trainer.draws import Draws, Purpose

pytestmark = pytest.mark.unit
SAMPLER = SamplerConfig(steps=2)


@pytest.fixture(scope="module")
def bundle(tiny_model_folder: Path) -> Iterator[ModelBundle]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_model(tiny_model_folder, "cpu", "fp32")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(prepared_folder: Path) -> PreparedSet:
    return PreparedSet(prepared_folder)


def draw(data: PreparedSet, clips: int = 2, chunks: int = 1, iteration: int = 0) -> Batch:
    return PreparedBatches(data, torch.device("cpu")).draw(Draws(0, iteration, range(clips)), chunks)


def denoiser(bundle: ModelBundle, seed: int | None = None) -> Denoiser:
    """A copy of the model's transformer; with a seed its weights are disturbed."""
    copy = type(bundle.transformer)(**{k: v for k, v in bundle.transformer.config.items() if not k.startswith("_")})
    copy.load_state_dict(bundle.transformer.state_dict())
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return Denoiser(copy.requires_grad_(True))


def stage2(bundle: ModelBundle, same: bool = False, **changes: Any) -> Stage2:
    settings = recipe("stage2", **{f"method__{key}": value for key, value in changes.items()}).method
    assert isinstance(settings, Stage2Config)
    seeds = (None, None, None) if same else (1, 2, 3)
    return Stage2(*(denoiser(bundle, seed) for seed in seeds), bundle.vae, GEOMETRY, settings, seed=0)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


class Watched(nn.Module):
    """Counts calls of a denoiser, and those that carry a gradient; keeps what it was last given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls, self.with_gradient = inner, 0, 0
        self.seen: list[tuple[Tensor, Tensor, Conditioning]] = []

    def forward(self, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
        self.calls += 1
        self.with_gradient += torch.is_grad_enabled()
        self.seen.append((latents.detach().clone(), level, given))
        result: Tensor = self.inner(latents, level, given)
        return result


def test_rollout_makes_the_engines_chunks(bundle: ModelBundle, data: PreparedSet) -> None:
    """Same noise, picture and speech: latents, colour match and motion latents of two chunks are the engine's."""
    batch = draw(data, clips=1, chunks=2)
    picture = Image.fromarray(((batch.pictures[0, :, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    shape = tuple(batch.latents.shape[2:])
    noise = {(k, i): batch.draws.normal(Purpose.ROLLOUT, shape, k * 2048 + i) for k in range(2) for i in range(2)}
    config = StreamConfig(
        width=64, height=64, geometry=GEOMETRY, sampler=SAMPLER, correction=CorrectionConfig(color_strength=0.5)
    )
    constants = stream_constants(bundle, config, picture, RecordedNoise(noise), context=batch.context)
    settings = RolloutConfig(sampler=SAMPLER, first_motion="reference", color_strength=0.5)
    rollout = Rollout(bundle.vae, GEOMETRY, settings)
    exact = replace(batch, y=constants.y, pictures=constants.picture, clip_features=batch.clip_features.float())
    motion: Tensor | None = None
    ours = rollout.first_motion(exact)
    for chunk in range(2):
        span = replace(chunk_span(chunk, GEOMETRY, "stream"))
        theirs = render(constants, span, motion, batch.windows[:, chunk], StageTimer())
        latents = rollout.sample_chunk(Denoiser(bundle.transformer), exact, chunk, ours)
        ours = rollout.following_motion(exact, bundle.vae.decode(latents))
        motion = theirs.motion
        # The image features went through bfloat16 in the prepared data.
        assert relative(ours, motion) < 0.02
    assert float(ours.std()) > 0.01


@pytest.mark.parametrize("exit_step", [0, 1])
def test_only_one_step_of_the_last_chunk_carries_a_gradient(
    exit_step: int, bundle: ModelBundle, data: PreparedSet
) -> None:
    student = Watched(denoiser(bundle))
    rollout = Rollout(bundle.vae, GEOMETRY, RolloutConfig(sampler=SAMPLER))
    last = rollout.last_chunk(student, draw(data, chunks=3), 3, exit_step)
    assert student.calls == 2 * 2 + exit_step + 1
    assert student.with_gradient == 1
    assert last.clean.requires_grad
    assert not last.motion.requires_grad
    assert last.known.tolist() == [True, True, False]
    latents, level, _ = student.seen[-1]
    assert torch.equal(latents[:, :, :2], last.motion[:, :, :2])
    assert float(level) == float(rollout.levels[exit_step])


def test_last_step_of_a_rollout_is_the_whole_sampler(bundle: ModelBundle, data: PreparedSet) -> None:
    network = denoiser(bundle)
    batch = draw(data, chunks=2)
    rollout = Rollout(bundle.vae, GEOMETRY, RolloutConfig(sampler=SAMPLER))
    last = rollout.last_chunk(network, batch, 2, 1)
    first = rollout.sample_chunk(network, batch, 0, rollout.first_motion(batch))
    motion = rollout.following_motion(batch, bundle.vae.decode(first))
    whole = rollout.sample_chunk(network, batch, 1, motion)
    assert torch.allclose(last.clean[:, :, 2:], whole[:, :, 2:], atol=1e-6)
    assert torch.equal(last.motion[:, :, :2], motion)


def test_teacher_forced_rollout_continues_the_true_video(bundle: ModelBundle, data: PreparedSet) -> None:
    student = Watched(denoiser(bundle))
    batch = draw(data, chunks=3)
    rollout = Rollout(bundle.vae, GEOMETRY, RolloutConfig(sampler=SAMPLER, motion="clip"))
    last = rollout.last_chunk(student, batch, 3, 0)
    assert student.calls == 1
    assert torch.equal(last.motion[:, :, :2], batch.latents[:, 2, :, :2])
    single = rollout.last_chunk(student, draw(data, chunks=1), 1, 0)
    assert single.known.tolist() == [True, False, False]


def test_guidance_is_the_formula_and_asks_only_what_counts(bundle: ModelBundle, data: PreparedSet) -> None:
    batch = draw(data)
    given = chunk_conditioning(batch, 0)
    given = replace(given, context=torch.randn(given.context.shape, generator=torch.Generator().manual_seed(0)))
    teacher, level = Watched(denoiser(bundle, 5)), torch.tensor([400.0, 700.0])
    latents = batch.latents[:, 0]
    with torch.no_grad():
        cond = clean_estimate(teacher, latents, level, given)
        no_text = clean_estimate(teacher, latents, level, given.without_text(batch.null_context))
        null = clean_estimate(teacher, latents, level, given.without_text(batch.null_context).without_speech())
        guided = guided_estimate(teacher, latents, level, given, batch.null_context, 3.0, 4.0)
    assert relative(guided, null + 4 * (no_text - null) + 3 * (cond - no_text)) < 1e-5
    assert relative(null, cond) > 1e-3
    assert len(guidance_terms(given, batch.null_context, 1.0, 1.0)) == 1
    assert len(guidance_terms(given, batch.null_context, 3.0, 4.0)) == 3
    empty = given.without_text(batch.null_context)
    assert [weight for weight, _ in guidance_terms(empty, batch.null_context, 3.0, 4.0)] == [4.0, -3.0]


def test_guided_model_makes_the_guided_estimate_in_the_engine(bundle: ModelBundle, data: PreparedSet) -> None:
    """The engine's own call of a guided model and the formula, for a model without text."""
    batch = draw(data, clips=1)
    picture = Image.fromarray(((batch.pictures[0, :, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    config = StreamConfig(width=64, height=64, geometry=GEOMETRY, sampler=SAMPLER)
    level, latents = torch.tensor([700.0]), batch.latents[:, 0].float()
    noise = RecordedNoise({})
    guided = stream_constants(guided_bundle(bundle, 2.5), config, picture, noise)
    given = replace(
        chunk_conditioning(batch, 0), y=guided.y, context=batch.null_context,
        clip_features=image_features(bundle.image_encoder, guided.picture[:, :, 0]),
    )  # fmt: skip
    with torch.no_grad():
        ours = denoise_step(latents, guided.velocity(given.windows, guided.y)(latents, level), level)
        theirs = guided_estimate(Denoiser(bundle.transformer), latents, level, given, batch.null_context, 3.0, 2.5)
        plain = stream_constants(bundle, config, picture, noise).velocity(given.windows, guided.y)(latents, level)
    assert relative(ours, theirs) < 1e-5
    assert relative(denoise_step(latents, plain, level), theirs) > 1e-3
    assert guided_bundle(bundle, 1.0) is bundle


@pytest.mark.parametrize("scale", [-1.0, 21.0, float("nan"), float("inf")])
def test_guidance_out_of_range_is_refused(bundle: ModelBundle, scale: float) -> None:
    with pytest.raises(ConfigError, match="Guidance is"):
        guided_bundle(bundle, scale)


def test_models_that_cannot_be_guided_are_refused(bundle: ModelBundle) -> None:
    with pytest.raises(ConfigError, match="reads a text too"):
        guided_bundle(replace(bundle, text_encoder=nn.Identity()), 2.0)
    deaf = denoiser(bundle).transformer.requires_grad_(False)
    for name, parameter in deaf.named_parameters():
        if "audio_cross_attn.proj" in name:
            parameter.zero_()
    config = StreamConfig(width=64, height=64, geometry=GEOMETRY, sampler=SAMPLER)
    engine = Engine(guided_bundle(replace(bundle, transformer=deaf), 2.0))
    sound = np.random.default_rng(0).normal(0, 0.1, GEOMETRY.slice_samples)
    with pytest.raises(ConfigError, match="cannot be guided"):
        engine.open_stream(config, Image.new("RGB", (64, 64))).step(sound)


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


def test_student_rests_where_fake_score_and_teacher_agree(bundle: ModelBundle, data: PreparedSet) -> None:
    """Equal networks without guidance: nothing to learn, whatever the student makes."""
    method = stage2(bundle, same=True, audio_guidance=1.0, text_guidance=1.0)
    losses, facts = method.step(draw(data, chunks=method.chunks(0)), 0)
    losses[STUDENT].backward()
    assert float(losses[STUDENT].detach()) < 1e-8
    assert float(facts["student.gap"]) < 1e-6
    largest = max(float(p.grad.abs().max()) for p in method.student.parameters() if p.grad is not None)
    assert largest < 1e-6


def test_each_turn_moves_one_network(bundle: ModelBundle, data: PreparedSet) -> None:
    method = stage2(bundle, critic_updates=2)
    turns = []
    for iteration in range(6):
        batch = draw(data, chunks=method.chunks(iteration), iteration=iteration)
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


def test_fake_score_learns_what_the_student_makes(bundle: ModelBundle, data: PreparedSet) -> None:
    method = stage2(bundle, max_chunks=1)
    optimizer = torch.optim.AdamW(method.fake_score.parameters(), lr=3e-3)
    found = []
    for _ in range(25):
        losses, _ = method.step(draw(data, iteration=1), 1)
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


def test_student_moves_to_the_teachers_distribution(bundle: ModelBundle, data: PreparedSet) -> None:
    """Student and fake score in turns: what the student makes becomes what the teacher knows, not what it was."""
    method = stage2(bundle, max_chunks=1, audio_guidance=1.0, text_guidance=1.0, critic_updates=2)
    method.student, method.fake_score, method.teacher = (PointMass(v) for v in (-0.5, 0.0, 0.7))  # type: ignore[assignment]
    networks = {STUDENT: method.student, FAKE_SCORE: method.fake_score}
    rates = {STUDENT: 0.04, FAKE_SCORE: 0.1}
    optimizers = {
        name: torch.optim.Adam(network.parameters(), lr=rates[name], betas=(0.0, 0.9))
        for name, network in networks.items()
    }
    for iteration in range(240):
        losses, _ = method.step(draw(data, iteration=iteration), iteration)
        for name, loss in losses.items():
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
    assert float(method.student.value.detach()) == pytest.approx(0.7, abs=0.15)  # type: ignore[attr-defined]
    assert float(method.fake_score.value.detach()) == pytest.approx(0.7, abs=0.15)  # type: ignore[attr-defined]


@pytest.mark.parametrize("noisy", [False, True])
def test_teacher_sees_motion_latents_as_the_recipe_says(noisy: bool, bundle: ModelBundle, data: PreparedSet) -> None:
    method = stage2(bundle, noisy_teacher_motion=noisy, audio_guidance=1.0, text_guidance=1.0)
    watched = Watched(method.teacher)
    method.teacher = watched  # type: ignore[assignment]
    batch = draw(data, chunks=1)
    method.step(batch, 0)
    latents, _, _ = watched.seen[0]
    clean = torch.equal(latents[:, :, :1], batch.latents[:, 0, :, :1])
    assert clean != noisy


def test_motion_alignment_reaches_the_motion_frames(bundle: ModelBundle, data: PreparedSet) -> None:
    batch = draw(data, chunks=1)
    plain, _ = stage2(bundle).step(batch, 0)
    pulled, facts = stage2(bundle, motion_alignment=2.0).step(batch, 0)
    # One of three latent frames is known: weight 2 times 1 / 2.
    alignment = float(facts["student.alignment"])
    assert float((pulled[STUDENT] - plain[STUDENT]).detach()) == pytest.approx(alignment, rel=1e-4)
    assert alignment > 0


def test_probe_levels_lie_within_the_students_step(bundle: ModelBundle) -> None:
    method = stage2(bundle)
    draws = Draws(0, 0, range(200))
    levels = [method.probe_levels(exit_step, draws) for exit_step in range(2)]
    high, low = method.rollout.levels[:2]
    assert (levels[0] <= high).all() and (levels[0] >= low).all()
    assert (levels[1] <= low).all() and float(levels[1].min()) >= 20
    assert float(levels[0].max()) <= 980
    full = stage2(bundle, times="full").probe_levels(0, draws)
    assert float(full.min()) < float(low) < float(full.max())


def test_chunk_counts_are_shared_and_cover_their_range(bundle: ModelBundle) -> None:
    method, other = stage2(bundle), stage2(bundle)
    counts = [method.chunks(iteration) for iteration in range(60)]
    assert set(counts) == {1, 2, 3}
    assert counts == [other.chunks(iteration) for iteration in range(60)]


def stage1(network: nn.Module, **changes: Any) -> Stage1:
    settings = recipe("stage1", **{f"method__{key}": value for key, value in changes.items()}).method
    assert isinstance(settings, Stage1Config)
    return Stage1(network, settings, GEOMETRY.motion_latents)  # type: ignore[arg-type]


class Silent(nn.Module):
    """Predicts no velocity."""

    def forward(self, latents: Tensor, level: Tensor, given: Conditioning) -> Tensor:
        return torch.zeros_like(latents)


def test_stage1_judges_new_frames_only(data: PreparedSet) -> None:
    """A network that predicts nothing has the error |noise - clean|^2, on the frames that are not given."""
    batch = draw(data, clips=4)
    method = stage1(Silent(), face_weight=0.0, temporal_weight=0.0)
    losses, _ = method.step(batch, 0)
    clean = batch.latents[:, 0]
    target = batch.draws.normal(Purpose.NOISE, tuple(clean.shape[1:])) - clean
    known = method._known(batch.draws, clean)
    expected = torch.stack([target[b][:, ~known[b, 0, :, 0, 0]].square().mean() for b in range(4)]).mean()
    assert float(losses[NETWORK].detach()) == pytest.approx(float(expected), rel=1e-5)
    other = batch.latents.clone()
    other[:, :, :, :1] += 3
    changed, _ = method.step(replace(batch, latents=other), 0)
    assert float(changed[NETWORK].detach()) == float(losses[NETWORK].detach())


def test_stage1_gives_motion_latents_clean_and_noises_the_rest(data: PreparedSet) -> None:
    watched = Watched(Silent())
    batch = draw(data, clips=8)
    method = stage1(watched)
    method.step(batch, 0)
    latents, level, _ = watched.seen[0]
    clean = batch.latents[:, 0]
    known = method._known(batch.draws, clean).expand_as(clean)
    assert torch.equal(latents[known], clean[known])
    assert not torch.isclose(latents[~known], clean[~known]).any(dim=0).all()
    assert set(method._known(batch.draws, clean)[:, 0, :, 0, 0].sum(1).tolist()) == {1, 2}
    assert ((level > 0) & (level <= 1000)).all()


def test_disturbed_motion_changes_what_is_given_and_not_what_is_asked(data: PreparedSet) -> None:
    batch = draw(data, clips=16)
    clean, disturbed = Watched(Silent()), Watched(Silent())
    expected, _ = stage1(clean).step(batch, 0)
    method = stage1(disturbed, motion_noise=1.0)
    found, _ = method.step(batch, 0)
    assert torch.equal(found[NETWORK], expected[NETWORK])
    new = ~method._known(batch.draws, batch.latents[:, 0])
    change = disturbed.seen[0][0] - clean.seen[0][0]
    assert (change * new == 0).all()
    changed = change.flatten(1).abs().amax(1) > 0
    assert 0 < int(changed.sum()) < 16
    both = changed & (~new[:, 0, :2, 0, 0]).all(1)
    first, second = change[both][:, :, 0].flatten(), change[both][:, :, 1].flatten()
    # Half of the disturbance is common to the frames.
    assert float(torch.corrcoef(torch.stack([first, second]))[0, 1]) == pytest.approx(0.5, abs=0.1)


def test_stage1_drops_conditioning_as_guidance_needs_it(data: PreparedSet) -> None:
    watched = Watched(Silent())
    batch = draw(data, clips=16)
    batch = replace(batch, context=batch.context + 1)
    stage1(watched, drop_all=0.3, drop_text=0.3).step(batch, 0)
    given = watched.seen[0][2]
    silent = given.windows.flatten(1).abs().sum(1) == 0
    wordless = (given.context == batch.null_context).flatten(1).all(1)
    assert 0 < int(silent.sum()) < int(wordless.sum()) < 16
    assert wordless[silent].all()


def test_stage1_weighs_face_and_change_over_time(data: PreparedSet) -> None:
    batch = draw(data)
    plain, _ = stage1(Silent(), face_weight=0.0, temporal_weight=0.0).step(batch, 0)
    weighed, facts = stage1(Silent(), face_weight=0.5, temporal_weight=0.25).step(batch, 0)
    expected = float(plain[NETWORK].detach()) + 0.5 * float(facts["face"]) + 0.25 * float(facts["temporal"])
    assert float(weighed[NETWORK].detach()) == pytest.approx(expected, rel=1e-5)
    assert 0 < float(batch.face.mean()) < 1


def test_frame_mean_is_per_clip() -> None:
    values = torch.arange(24.0).view(2, 1, 3, 2, 2)
    frames = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]).view(2, 1, 3, 1, 1)
    assert torch.allclose(frame_mean(values, frames), torch.stack([values[0, :, 1:].mean(), values[1, :, 2:].mean()]))
