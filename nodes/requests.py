"""From a stream's recipe to the request that makes its video: the same one that the command line builds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from livetalk_core.production.request import Recording, VideoRequest

from .placing import runs_in_daemon
from .recipes import StreamRecipe


def video_request(stream: StreamRecipe, output: Path, stop: Callable[[], bool]) -> VideoRequest:
    """The request for a stream.

    Args:
        stream: What to make.
        output: The .mp4 to write.
        stop: Whether the run has been stopped.

    Raises:
        ConfigError: several GPUs where there are no daemons.
    """
    model, audio = stream.model, stream.audio
    return VideoRequest(
        audio=Recording(audio.samples, audio.sample_rate, "the audio input"),
        output=output,
        image=stream.picture,
        model=model.folder,
        prompt=stream.prompt or None,
        context=stream.context,
        clip_features=stream.clip_features,
        size=stream.size,
        seed=stream.seed,
        steps=stream.steps,
        shift=stream.shift,
        mode=audio.mode,
        loudness=audio.loudness,
        geometry=stream.geometry,
        correction=stream.correction,
        device=model.device,
        dtype=model.dtype,
        max_seconds=stream.max_seconds,
        compile=model.compile,
        offload=model.offload,
        world_size=model.gpus if runs_in_daemon(model) else None,
        attention=model.attention,
        stop=stop,
    )
