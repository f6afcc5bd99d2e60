"""A model taken apart for training: its transformer several times, its VAE once, its encoders not at all."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import CheckpointError
from ..models.bundle import ModelDefaults
from ..models.transformer import LiveTalkTransformer3DModel
from ..models.vae import WanVideoVAE
from .assemble import AssemblyPlan
from .describe import manifest_of
from .layout import ModelFiles, find_model
from .load import plan_modules
from .placement import choose_placement


@dataclass(frozen=True)
class ModelParts:
    """What training takes from a model folder; weights are read when they are asked for.

    Attributes:
        files: Where everything lies.
        defaults: Settings the model was trained for.
        name: For people.
        encoders: Fingerprint of VAE, audio and image encoder: prepared data belong to them.
        plan: The transformer on the meta device, float32, and the way of its weights.
        vae_plan: The same of the VAE.
    """

    files: ModelFiles
    defaults: ModelDefaults
    name: str
    encoders: str
    plan: AssemblyPlan
    vae_plan: AssemblyPlan

    def transformer(self) -> LiveTalkTransformer3DModel:
        """A new transformer of the model's dimensions on the meta device."""
        with torch.device("meta"):
            settings = {key: value for key, value in self.plan.config.items() if not key.startswith("_")}
            transformer: LiveTalkTransformer3DModel = LiveTalkTransformer3DModel(**settings)
            return transformer

    @property
    def stored_dtype(self) -> torch.dtype:
        """Number format that most of the transformer's weights have on disk."""
        sizes: Counter[torch.dtype] = Counter()
        for key in self.plan.weights:
            entry = self.plan.weights.entry(key)
            if entry.dtype.is_floating_point:
                sizes[entry.dtype] += math.prod(entry.shape)
        return sizes.most_common(1)[0][0]

    def describe(self) -> str:
        """Name of the model, and a fingerprint that changes with its transformer's weights."""
        return f"{self.name} ({self.plan.weights.fingerprint()[:12]})"

    def vae(self, device: torch.device) -> WanVideoVAE:
        """The VAE with its weights; a part gives it once."""
        return WanVideoVAE(self.vae_plan.fill(device)).to(device)


def open_parts(path: str | Path | None, vae_dtype: torch.dtype = torch.float32) -> ModelParts:
    """Open a model folder for training.

    Args:
        path: A model folder, or None for the embedded model.
        vae_dtype: Number format of the VAE.

    Raises:
        CheckpointError: missing, incomplete, damaged or wrong files.
    """
    files = find_model(path)
    plans = plan_modules(files, choose_placement("cpu", vae_dtype))
    transformer = plans["transformer"]
    if not isinstance(transformer.module, LiveTalkTransformer3DModel):
        raise CheckpointError(f"{files.folder} holds no LiveTalk transformer.", "Give a LiveTalk model folder.")
    digest = hashlib.sha256()
    for name in ("vae", "audio_encoder", "image_encoder"):
        digest.update(f"{name} {plans[name].weights.fingerprint()} ".encode())
    manifest = manifest_of(files)
    return ModelParts(files, manifest.defaults, manifest.name, digest.hexdigest()[:32], transformer, plans["vae"])
