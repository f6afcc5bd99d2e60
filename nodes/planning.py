"""From the widgets of the nodes to recipes: defaults filled in, values checked before anything is queued or loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from livetalk_core.config import AudioConfig, ChunkGeometry, CorrectionConfig
from livetalk_core.errors import AudioError, ConfigError
from livetalk_core.loading.describe import describe_model
from livetalk_core.models.bundle import ModelDefaults

from . import inputs
from .limits import MAX_WHOLE_SECONDS, chunk_problem, prompt_problem, size_problem
from .recipes import AudioRecipe, ModelRecipe, StreamRecipe


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
    """Put a stream together; zeros mean "as the model says".

    Raises:
        ImageError, ConfigError, CheckpointError: what cannot be used.
    """
    problem = size_problem(*size) or prompt_problem(prompt) or chunk_problem(*chunk)
    if problem:
        raise ConfigError(problem)
    defaults = model_defaults(model)
    return StreamRecipe(
        model=model,
        audio=audio,
        picture=inputs.picture(image),
        prompt=prompt,
        seed=seed,
        size=size if size[0] else None,
        steps=steps or None,
        shift=shift or None,
        geometry=_geometry(defaults.geometry, chunk),
        max_seconds=max_seconds or None,
        context=None if conditioning is None else inputs.text_features(conditioning),
        clip_features=None if clip_vision_output is None else inputs.image_features(clip_vision_output),
    )


def plan_correction(stream: StreamRecipe, color_strength: float) -> StreamRecipe:
    """The same stream with another correction; a negative strength means "as the model says".

    Raises:
        ConfigError: a value out of range.
    """
    base: CorrectionConfig = model_defaults(stream.model).correction
    given = {} if color_strength < 0 else {"color_strength": color_strength}
    return replace(stream, correction=msgspec.structs.replace(base, **given))


def _geometry(base: ChunkGeometry, chunk: tuple[int, int]) -> ChunkGeometry | None:
    frames, motion_frames = chunk
    if not frames and not motion_frames:
        return None
    return msgspec.structs.replace(
        base, frames=frames or base.frames, motion_frames=motion_frames or base.motion_frames
    )
