"""Guidance: the formula, in training and in the engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from denoisers import SAMPLER, Watched, denoiser, draw, relative
from PIL import Image
from torch import nn
from training_data import GEOMETRY

from livetalk_core.config import StreamConfig
from livetalk_core.engine import Engine
from livetalk_core.engine.constants import stream_constants
from livetalk_core.errors import ConfigError
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.models.encoders import image_features
from livetalk_core.sampling import RecordedNoise, denoise_step
from livetalk_core.training.data.prepared import PreparedSet
from livetalk_core.training.methods.denoiser import Denoiser, clean_estimate
from livetalk_core.training.methods.guidance import guidance_terms, guided_bundle, guided_estimate
from livetalk_core.training.methods.rollout import chunk_conditioning

pytestmark = pytest.mark.unit


def test_guidance_is_the_formula_and_asks_only_what_counts(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    batch = draw(prepared)
    given = chunk_conditioning(batch, 0)
    given = replace(given, context=torch.randn(given.context.shape, generator=torch.Generator().manual_seed(0)))
    teacher, level = Watched(denoiser(tiny_model, 5)), torch.tensor([400.0, 700.0])
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


def test_guided_model_makes_the_guided_estimate_in_the_engine(tiny_model: ModelBundle, prepared: PreparedSet) -> None:
    """The engine's own call of a guided model and the formula, for a model without text."""
    batch = draw(prepared, clips=1)
    picture = Image.fromarray(((batch.pictures[0, :, 0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
    config = StreamConfig(width=64, height=64, geometry=GEOMETRY, sampler=SAMPLER)
    level, latents = torch.tensor([700.0]), batch.latents[:, 0].float()
    noise = RecordedNoise({})
    guided = stream_constants(guided_bundle(tiny_model, 2.5), config, picture, noise)
    given = replace(
        chunk_conditioning(batch, 0), y=guided.y, context=batch.null_context,
        clip_features=image_features(tiny_model.image_encoder, guided.picture[:, :, 0]),
    )  # fmt: skip
    with torch.no_grad():
        ours = denoise_step(latents, guided.velocity(given.windows, guided.y)(latents, level), level)
        theirs = guided_estimate(Denoiser(tiny_model.transformer), latents, level, given, batch.null_context, 3.0, 2.5)
        plain = stream_constants(tiny_model, config, picture, noise).velocity(given.windows, guided.y)(latents, level)
    assert relative(ours, theirs) < 1e-5
    assert relative(denoise_step(latents, plain, level), theirs) > 1e-3
    assert guided_bundle(tiny_model, 1.0) is tiny_model


@pytest.mark.parametrize("scale", [-1.0, 21.0, float("nan"), float("inf")])
def test_guidance_out_of_range_is_refused(tiny_model: ModelBundle, scale: float) -> None:
    with pytest.raises(ConfigError, match="Guidance is"):
        guided_bundle(tiny_model, scale)


def test_models_that_cannot_be_guided_are_refused(tiny_model: ModelBundle) -> None:
    with pytest.raises(ConfigError, match="reads a text too"):
        guided_bundle(replace(tiny_model, text_encoder=nn.Identity()), 2.0)
    deaf = denoiser(tiny_model).transformer.requires_grad_(False)
    for name, parameter in deaf.named_parameters():
        if "audio_cross_attn.proj" in name:
            parameter.zero_()
    config = StreamConfig(width=64, height=64, geometry=GEOMETRY, sampler=SAMPLER)
    engine = Engine(guided_bundle(replace(tiny_model, transformer=deaf), 2.0))
    sound = np.random.default_rng(0).normal(0, 0.1, GEOMETRY.slice_samples)
    with pytest.raises(ConfigError, match="cannot be guided"):
        engine.open_stream(config, Image.new("RGB", (64, 64))).step(sound)
