"""From the widgets of the nodes to recipes: defaults filled in, values checked before anything is queued or loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from livetalk_core.config import AudioConfig, ChunkGeometry
from livetalk_core.errors import AudioError, ConfigError
from livetalk_core.loading.describe import describe_model
from livetalk_core.loading.layout import find_model
from livetalk_core.models.bundle import ModelDefaults

from . import inputs
from .limits import MAX_SIDE, MAX_WHOLE_SECONDS, SIDE_STEP, stream_problem
from .model_list import file_stamp
from .recipes import AudioRecipe, LatentRecipe, ModelRecipe, StreamRecipe


def model_defaults(model: ModelRecipe) -> ModelDefaults:
    """The settings that a model was trained for; none of its weights is read.

    Raises:
        CheckpointError: no such model, or an incomplete one.
    """
    return describe_model(model.folder).defaults


def plan_audio(
    model: ModelRecipe, audio: Any, loudness: float, mode: Literal["stream", "whole"], folder: Path
) -> AudioRecipe:
    """Check and resample an AUDIO.

    Raises:
        AudioError: unusable, or too long for mode "whole".
        ConfigError: the loudness is out of range.
        CheckpointError: the model is not there.
    """
    inputs.require_recipe(model, ModelRecipe, "model")
    AudioConfig(loudness=loudness, mode=mode)
    rate = model_defaults(model).geometry.sample_rate
    recipe = AudioRecipe(inputs.sound(audio, rate, folder), rate, mode, loudness)
    if mode == "whole" and recipe.seconds > MAX_WHOLE_SECONDS:
        raise AudioError(
            f"The sound lasts {recipe.seconds:.1f} s; mode 'whole' takes at most {MAX_WHOLE_SECONDS} s.",
            "Choose mode 'stream', which takes any length.",
        )
    return recipe


def plan_stream(
    model: ModelRecipe,
    audio: AudioRecipe,
    image: Any,
    *,
    prompt: str,
    seed: int,
    size: tuple[int, int],
    steps: int,
    shift: float,
    chunk: tuple[int, int],
    max_seconds: float,
    conditioning: Any = None,
    clip_vision_output: Any = None,
) -> StreamRecipe:
    """Put a stream together; zeros mean "as the model says", of one side "as the picture's shape asks for".

    Raises:
        ImageError, ConfigError, CheckpointError: what cannot be used.
    """
    inputs.require_recipe(model, ModelRecipe, "model")
    inputs.require_recipe(audio, AudioRecipe, "audio")
    problem = stream_problem(prompt, size, chunk, shift, max_seconds)
    if problem:
        raise ConfigError(problem)
    defaults = model_defaults(model)
    picture = inputs.picture(image)
    return StreamRecipe(
        model=model,
        audio=audio,
        picture=picture,
        prompt=prompt,
        seed=seed,
        size=_size(size, picture.size),
        steps=steps or None,
        shift=shift or None,
        geometry=_geometry(defaults.geometry, chunk),
        max_seconds=max_seconds or None,
        context=None if conditioning is None else inputs.text_features(conditioning),
        clip_features=None if clip_vision_output is None else inputs.image_features(clip_vision_output),
    )


def plan_correction(stream: StreamRecipe, color_strength: float, **settings: Any) -> StreamRecipe:
    """The same stream with another correction.

    Args:
        stream: To be corrected.
        color_strength: Of the colour match; negative leaves it to the model.
        settings: Other fields of `CorrectionConfig`.

    Raises:
        ConfigError: a value out of range.
    """
    inputs.require_recipe(stream, StreamRecipe, "stream")
    given = dict(settings) if color_strength < 0 else {**settings, "color_strength": color_strength}
    base = model_defaults(stream.model).correction
    return replace(stream, correction=msgspec.structs.replace(base, **given))


def plan_latents(samples: Any, model: ModelRecipe, fps: int, tiled: bool) -> LatentRecipe:
    """Check a LATENT and find the VAE for it.

    Args:
        samples: {"samples": float [B,16,T,h,w] or [B,16,h,w]}.
        model: Its VAE file, or the VAE of its folder, decodes.
        fps, tiled: See `LatentRecipe`.

    Raises:
        ConfigError: latents of another kind, or a model whose VAE cannot decode them.
        CheckpointError: the model is not there.
    """
    inputs.require_recipe(model, ModelRecipe, "model")
    latents = inputs.latents(samples)
    return LatentRecipe(latents, _vae_of(model), fps, tiled)


def _vae_of(model: ModelRecipe) -> ModelRecipe:
    """The VAE alone as something to load."""
    if model.vae_file is None and model.folder is None:
        raise ConfigError(
            "The embedded model's VAE has latents of its own; it cannot decode those of other models.",
            "In Load LiveTalk Model choose a Wan 2.1 VAE as vae, for instance wan_2.1_vae.safetensors.",
        )
    path = find_model(model.folder).vae.weights[0] if model.vae_file is None else Path(model.vae_file)
    return replace(model, name=path.name, folder=str(path), stamp=file_stamp(path), compile=False, vae_file=None)


def _size(asked: tuple[int, int], picture: tuple[int, int]) -> tuple[int, int] | None:
    """Both sides of the video; the one that is 0 follows from the other and the picture's shape."""
    (width, height), (across, down) = asked, picture
    if not width and not height:
        return None
    return width or _side(height * across / down), height or _side(width * down / across)


def _side(exact: float) -> int:
    return min(MAX_SIDE, max(SIDE_STEP, round(exact / SIDE_STEP) * SIDE_STEP))


def _geometry(base: ChunkGeometry, chunk: tuple[int, int]) -> ChunkGeometry | None:
    frames, motion_frames = chunk
    if not frames and not motion_frames:
        return None
    return msgspec.structs.replace(
        base, frames=frames or base.frames, motion_frames=motion_frames or base.motion_frames
    )
