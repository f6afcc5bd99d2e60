"""Load a model: find its files, verify all headers, check memory, then stream every weight to its place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..config import Offload
from ..models.bundle import ModelBundle, ModelDefaults
from ..models.encoders import load_tokenizer
from ..models.vae import WanVideoVAE
from .assemble import AssemblyPlan
from .components import plan_audio_encoder, plan_image_encoder, plan_text_encoder, plan_transformer, plan_vae
from .describe import manifest_of
from .layout import ModelFiles, Replacements, find_model, find_vae
from .manifest import Manifest, read_audio_normalise, require_equal
from .placement import Placement, choose_placement, memory_of, require_memory
from .random_model import PREFIX, random_model

logger = logging.getLogger("livetalk")

WORKING_BYTES = 6 * 1024**3
"""What a chunk of the published model needs beside the weights (`livetalk plan`), rounded up."""


def load_model(
    path: str | Path | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    offload: Offload = "auto",
    replacements: Replacements | None = None,
    poll: Callable[[], None] | None = None,
) -> ModelBundle:
    """Load a model from a folder, or make one with random weights.

    All headers are verified and all names and shapes matched before any weight is read; then tensors go one
    by one to `device` and `dtype`, so that the extra memory stays below one shard.

    Args:
        path: A model folder (published or our own layout), None or "embedded" for the one in the package, or
            "random:14b" / "random:tiny".
        device: "auto", "cpu", "cuda", "cuda:1" ...
        dtype: Format of transformer, VAE and text encoder: "auto", "fp32", "bf16", "fp16". The image
            encoder is float16 on a GPU and float32 elsewhere, the audio encoder always float32, as published.
        offload: "encoders" leaves text and image encoder, a quarter of the published weights, in host memory, where
            they compute once per stream; "none" puts everything on `device`; "auto" decides by the device's memory.
        replacements: Files used in place of the folder's own.
        poll: Called between any two tensors; what it raises ends the loading.

    Raises:
        CheckpointError: missing, incomplete, damaged, hostile or wrong files, each named.
        DeviceError: a device or format this machine does not offer, or too little memory.
    """
    if isinstance(path, str) and path.startswith(PREFIX):
        return random_model(path.removeprefix(PREFIX), device, dtype)
    place_on = choose_placement(device, dtype)
    files = find_model(path, replacements)
    return _load(files, _settle_offload(files, place_on, offload), poll)


def load_encoders(
    path: str | Path | None = None, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> ModelBundle:
    """A model without the weights of its transformer, which stays on the meta device: for encoding only.

    Arguments and errors as for `load_model`.
    """
    place_on = choose_placement(device, dtype)
    return _load(find_model(path), place_on, poll=None, left_out=("transformer",))


def _settle_offload(files: ModelFiles, place_on: Placement, offload: Offload) -> Placement:
    """The placement with the encoders where they are wanted, or where there is room for them."""
    if offload == "none" or place_on.device.type == "cpu":
        return place_on
    if offload == "auto":
        memory = memory_of(place_on.device)
        needed = sum(plan.needed_bytes for plan in plan_modules(files, place_on).values())
        if memory is None or needed + WORKING_BYTES <= memory[1]:
            return place_on
        logger.warning("%s is too small for everything: text and image encoder stay in host memory.", place_on.device)
    return place_on.offloaded()


def _load(
    files: ModelFiles, place_on: Placement, poll: Callable[[], None] | None, left_out: tuple[str, ...] = ()
) -> ModelBundle:
    manifest = manifest_of(files)
    audio_normalise = read_audio_normalise(files.audio_preprocessor)
    plans = plan_modules(files, place_on)
    _require_matching(plans)
    wanted = {name: plan for name, plan in plans.items() if name not in left_out}
    for device in {place_on.device, place_on.encoder_device}:
        needed = sum(plan.needed_bytes for name, plan in wanted.items() if place_on.device_of(name) == device)
        require_memory(needed, device, manifest.name)
    tokenizer = None if files.tokenizer is None else load_tokenizer(files.tokenizer)
    revision = _revision(files, plans)
    modules = {name: plans[name].module for name in left_out}
    modules |= {name: plan.fill(place_on.device_of(name), poll) for name, plan in wanted.items()}
    logger.info("loaded %s (%s) on %s as %s", manifest.name, revision[:12], place_on.device, place_on.dtype)
    return _bundle(modules, tokenizer, audio_normalise, manifest, revision, place_on)


def load_vae(
    path: str | Path, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto"
) -> tuple[WanVideoVAE, str]:
    """Load a VAE alone, and the fingerprint of its weights.

    Args:
        path: Its .safetensors file.
        device, dtype: See `load_model`.

    Raises:
        CheckpointError, DeviceError: see `load_model`.
    """
    place_on = choose_placement(device, dtype)
    plan = plan_vae(find_vae(Path(path)), place_on.dtype)
    require_memory(plan.needed_bytes, place_on.device, Path(path).name)
    module: Any = plan.fill(place_on.device)
    return WanVideoVAE(module).to(place_on.device), hashlib.sha256(plan.weights.fingerprint().encode()).hexdigest()


def plan_modules(files: ModelFiles, place_on: Placement) -> dict[str, AssemblyPlan]:
    """Every module of a model on the meta device with the way of its weights, by name of its `ModelBundle` field.

    Raises:
        CheckpointError: missing, damaged or wrong files.
    """
    audio = plan_audio_encoder(files.audio_encoder, place_on.audio_dtype)
    image = plan_image_encoder(files.image_encoder, place_on.image_dtype)
    # The published configuration leaves these out, because they are those of its encoders.
    absent = {
        "audio_layers": audio.config.num_hidden_layers,
        "audio_channels": audio.config.hidden_size,
        "clip_dim": image.config.hidden_size,
    }
    plans = {
        "transformer": plan_transformer(files.transformer, place_on.dtype, absent),
        "vae": plan_vae(files.vae, place_on.dtype),
        "audio_encoder": audio,
        "image_encoder": image,
    }
    if files.text_encoder is not None:
        plans["text_encoder"] = plan_text_encoder(files.text_encoder, place_on.text_dtype)
    return plans


def _require_matching(plans: Mapping[str, AssemblyPlan]) -> None:
    """The transformer must fit the encoders and the VAE it is used with."""
    wanted = plans["transformer"].config
    audio, image, vae = (plans[name] for name in ("audio_encoder", "image_encoder", "vae"))
    require_equal(
        "layers of the audio encoder",
        wanted.audio_layers,
        audio.config.num_hidden_layers,
        audio.weights.source,
    )
    require_equal("width of the audio encoder", wanted.audio_channels, audio.config.hidden_size, audio.weights.source)
    require_equal("width of the image encoder", wanted.clip_dim, image.config.hidden_size, image.weights.source)
    require_equal("latent channels of the VAE", wanted.out_dim, vae.config.z_dim, vae.weights.source)
    if "text_encoder" in plans:
        text = plans["text_encoder"]
        require_equal("width of the text encoder", wanted.text_dim, text.config.d_model, text.weights.source)


def _revision(files: ModelFiles, plans: Mapping[str, AssemblyPlan]) -> str:
    """A fingerprint of all weights and module settings, cheap for tens of gigabytes."""
    digest = hashlib.sha256()
    for name, plan in sorted(plans.items()):
        digest.update(f"{name} {plan.weights.fingerprint()} ".encode())
    parts = (files.transformer, files.vae, files.image_encoder, files.audio_encoder, files.text_encoder)
    for path in [
        files.audio_preprocessor,
        *(part.config for part in parts if part is not None and part.config is not None),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _bundle(
    modules: Mapping[str, Any],
    tokenizer: Any,
    audio_normalise: bool,
    manifest: Manifest,
    revision: str,
    place_on: Placement,
) -> ModelBundle:
    defaults: ModelDefaults = manifest.defaults
    return ModelBundle(
        transformer=modules["transformer"],
        vae=WanVideoVAE(modules["vae"]).to(place_on.device),
        audio_encoder=modules["audio_encoder"],
        audio_normalise=audio_normalise,
        image_encoder=modules["image_encoder"],
        text_encoder=modules.get("text_encoder"),
        tokenizer=tokenizer,
        defaults=defaults,
        name=manifest.name,
        revision=revision,
        device=place_on.device,
        dtype=place_on.dtype,
    )
