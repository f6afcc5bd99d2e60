"""The rollout of training is the engine's; only what is learnt from carries a gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from denoisers import SAMPLER, Watched, denoiser, draw, relative
from PIL import Image
from torch import Tensor
from training_data import GEOMETRY

from livetalk_core.chunking import chunk_span
from livetalk_core.config import CorrectionConfig, StreamConfig
from livetalk_core.engine.constants import stream_constants
from livetalk_core.engine.step import render
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.sampling import RecordedNoise
from livetalk_core.telemetry import StageTimer
from livetalk_core.training.data.prepared import PreparedSet
from livetalk_core.training.methods.denoiser import Denoiser
from livetalk_core.training.methods.rollout import Rollout
from livetalk_core.training.recipes import RolloutConfig
from livetalk_core.training.trainer.draws import Purpose

pytestmark = pytest.mark.unit


def test_rollout_makes_the_engines_chunks(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    """Same noise, picture and speech: latents, colour match and motion latents of two chunks are the engine's."""
    batch = draw(prepared, clips=1, chunks=2)
    picture = Image.fromarray(((batch.pictures[0, :, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    shape = tuple(batch.latents.shape[2:])
    noise = {(k, i): batch.draws.normal(Purpose.ROLLOUT, shape, k * 2048 + i) for k in range(2) for i in range(2)}
    config = StreamConfig(
        width=64, height=64, geometry=GEOMETRY, sampler=SAMPLER, correction=CorrectionConfig(color_strength=0.5)
    )
    constants = stream_constants(tiny_model, config, picture, RecordedNoise(noise), context=batch.context)
    settings = RolloutConfig(sampler=SAMPLER, first_motion="reference", color_strength=0.5)
    rollout = Rollout(tiny_model.vae, GEOMETRY, settings)
    exact = replace(batch, y=constants.y, pictures=constants.picture, clip_features=batch.clip_features.float())
    motion: Tensor | None = None
    ours = rollout.first_motion(exact)
    for chunk in range(2):
        span = replace(chunk_span(chunk, GEOMETRY, "stream"))
        theirs = render(constants, span, motion, batch.windows[:, chunk], StageTimer())
        latents = rollout.sample_chunk(Denoiser(tiny_model.transformer), exact, chunk, ours)
        ours = rollout.following_motion(exact, tiny_model.vae.decode(latents))
        motion = theirs.motion
        # The image features went through bfloat16 in the prepared data.
        assert relative(ours, motion) < 0.02
    assert float(ours.std()) > 0.01


@pytest.mark.parametrize("exit_step", [0, 1])
def test_only_one_step_of_the_last_chunk_carries_a_gradient(
    exit_step: int, tiny_model: ModelBundle, prepared: PreparedSet
) -> None:
    student = Watched(denoiser(tiny_model))
    rollout = Rollout(tiny_model.vae, GEOMETRY, RolloutConfig(sampler=SAMPLER))
    last = rollout.last_chunk(student, draw(prepared, chunks=3), 3, exit_step)
    assert student.calls == 2 * 2 + exit_step + 1
    assert student.with_gradient == 1
    assert last.clean.requires_grad
    assert not last.motion.requires_grad
    assert last.known.tolist() == [True, True, False]
    latents, level, _ = student.seen[-1]
    assert torch.equal(latents[:, :, :2], last.motion[:, :, :2])
    assert float(level) == float(rollout.levels[exit_step])


def test_last_step_of_a_rollout_is_the_whole_sampler(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    network = denoiser(tiny_model)
    batch = draw(prepared, chunks=2)
    rollout = Rollout(tiny_model.vae, GEOMETRY, RolloutConfig(sampler=SAMPLER))
    last = rollout.last_chunk(network, batch, 2, 1)
    first = rollout.sample_chunk(network, batch, 0, rollout.first_motion(batch))
    motion = rollout.following_motion(batch, tiny_model.vae.decode(first))
    whole = rollout.sample_chunk(network, batch, 1, motion)
    assert torch.allclose(last.clean[:, :, 2:], whole[:, :, 2:], atol=1e-6)
    assert torch.equal(last.motion[:, :, :2], motion)


def test_teacher_forced_rollout_continues_the_true_video(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    student = Watched(denoiser(tiny_model))
    batch = draw(prepared, chunks=3)
    rollout = Rollout(tiny_model.vae, GEOMETRY, RolloutConfig(sampler=SAMPLER, motion="clip"))
    last = rollout.last_chunk(student, batch, 3, 0)
    assert student.calls == 1
    assert torch.equal(last.motion[:, :, :2], batch.latents[:, 2, :, :2])
    single = rollout.last_chunk(student, draw(prepared, chunks=1), 1, 0)
    assert single.known.tolist() == [True, False, False]
