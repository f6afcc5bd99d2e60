"""Session set-up and consecutive chunks end to end, through the engine itself, with recorded noise."""

from __future__ import annotations

import re
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..chunking import chunk_span
from ..config import AudioConfig, ChunkGeometry, CorrectionConfig, SamplerConfig
from ..engine.constants import StreamConstants, stream_constants
from ..engine.step import render, to_255
from ..models.bundle import ModelBundle, ModelDefaults
from ..sampling import RecordedNoise
from ..telemetry import StageTimer
from . import builders
from .vectors import Vectors


def check_chunks(vectors: Vectors) -> dict[str, Tensor]:
    """The recorded chunks in order, each from our own motion latents of the one before."""
    given = vectors.tensors("chunk_io")
    constants = _open(vectors, given)
    results = {
        "mid.timesteps": constants.levels,
        "mid.cond_image": constants.picture,
        "mid.y": constants.y,
    }
    motion: Tensor | None = None
    chunk = 0
    while f"in.chunk{chunk}.audio" in given:
        prefix = f"chunk{chunk}"

        def record(name: str, value: Tensor, prefix: str = prefix) -> None:
            if name == "video":
                results[f"out.{prefix}.frames_0_255"] = to_255(value)
            else:
                results[f"mid.{prefix}.{name}"] = value

        span = chunk_span(chunk, constants.config.geometry, "stream")
        rendered = render(constants, span, motion, given[f"in.{prefix}.audio"], StageTimer(), record)
        motion = rendered.motion
        chunk += 1
    return results


def _open(vectors: Vectors, given: dict[str, Tensor]) -> StreamConstants:
    """The stream as the engine opens it; text and image features are part of the recording."""
    settings = vectors.config("chunk")
    bundle = _bundle(vectors, given["in.chunk0.audio"], settings)
    height, width = settings["hw"]
    config = bundle.defaults.stream(width=width, height=height, seed=max(0, settings.get("seed", 0)))
    noise = {}
    for name, tensor in given.items():
        match = re.fullmatch(r"mid\.chunk(\d+)\.noise(\d+)", name)
        if match:
            noise[int(match[1]), int(match[2])] = tensor
    return stream_constants(
        bundle,
        config,
        Image.fromarray(given["in.image_u8"].numpy()),
        RecordedNoise(noise),
        context=given["in.context"].unsqueeze(0) if given["in.context"].ndim == 2 else given["in.context"],
        clip_features=given["in.clip_fea"],
    )


def _bundle(vectors: Vectors, windows: Tensor, settings: dict[str, Any]) -> ModelBundle:
    """A model of the recorded transformer and VAE; the encoders are bypassed."""
    transformer, vae = builders.transformer(vectors, windows), builders.vae(vectors)
    frames, fps = settings["frames"], ChunkGeometry().fps
    geometry = ChunkGeometry(
        frames=frames,
        motion_frames=settings["motion"],
        window_seconds=max(ChunkGeometry().window_seconds, -(-frames // fps)),
        temporal_stride=vae.config.scale_factor_temporal,
        spatial_stride=vae.config.scale_factor_spatial,
    )
    height, width = settings["hw"]
    defaults = ModelDefaults(
        width=width,
        height=height,
        geometry=geometry,
        sampler=SamplerConfig(steps=settings["steps"], shift=settings["shift"]),
        audio=AudioConfig(context=(windows.shape[2] - 1) // 2),
        correction=CorrectionConfig(color_strength=settings["color_strength"]),
    )
    return ModelBundle(
        transformer=transformer, vae=vae, audio_encoder=None, audio_normalise=False, image_encoder=None,
        text_encoder=None, tokenizer=None, defaults=defaults, name="vectors", revision="vectors",
        device=torch.device("cpu"), dtype=torch.float32,
    )  # fmt: skip
