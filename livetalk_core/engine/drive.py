"""From blocks of sound to chunks of video: re-cutting, padding, trimming and length limits around `step`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..audio import collect_clip, cut_slices
from ..chunking import adds_a_frame
from ..config import ChunkGeometry, StreamConfig
from ..errors import AudioError, ConfigError
from .state import StreamState
from .step import Chunk, Progress
from .stream import Engine, Stream

Blocks = Iterable[NDArray[np.floating]]


def generate(
    engine: Engine,
    config: StreamConfig,
    picture: Image.Image,
    blocks: Blocks,
    *,
    max_seconds: float | None = None,
    state: StreamState | None = None,
    progress: Progress | None = None,
) -> Iterator[Chunk]:
    """Video for a sound, chunk by chunk: as many frames as the sound has, at constant memory in stream mode.

    Args:
        engine: The model.
        config: Settings.
        picture: Reference picture, RGB.
        blocks: Sound from its beginning, in blocks of any size; read as far as needed.
        max_seconds: Use only the beginning of the sound.
        state: Continue from here; the sound that it has heard is skipped.
        progress: Is told where each chunk is, and may leave it by raising.

    Raises:
        AudioError: no sound, or sound that cannot be used.
        ConfigError, ImageError, StateError, NumericalError: see `Engine.open_stream` and `Stream.step`.
    """
    stream = open_for(engine, config, picture, blocks, max_seconds=max_seconds, state=state)
    yield from drive(stream, blocks, max_seconds=max_seconds, progress=progress)


def open_for(
    engine: Engine,
    config: StreamConfig,
    picture: Image.Image,
    blocks: Blocks,
    *,
    max_seconds: float | None = None,
    state: StreamState | None = None,
    context: Tensor | None = None,
    clip_features: Tensor | None = None,
) -> Stream:
    """Open a stream; whole mode reads and encodes all blocks here, stream mode leaves them alone."""
    clip = None
    limit = _sample_limit(config.geometry, max_seconds)
    if config.audio.mode == "whole":
        clip = engine.encode_whole(collect_clip(blocks, config.geometry, limit), config)
    return engine.open_stream(
        config, picture, clip=clip, context=context, clip_features=clip_features, state=state
    )


def drive(
    stream: Stream, blocks: Blocks, *, max_seconds: float | None = None, progress: Progress | None = None
) -> Iterator[Chunk]:
    """The chunks of an open stream; between two of them `stream.state` can be saved.

    In whole mode the stream holds its sound and `blocks` is not read. In stream mode `blocks` starts at the
    beginning of the sound; what the stream's state has heard already is skipped. `progress` is
    told where each chunk is, and may leave it by raising.
    """
    if stream.constants.clip is not None:
        while not stream.state.ended:
            yield stream.step(progress=progress)
        return
    geometry = stream.constants.config.geometry
    limit = _sample_limit(geometry, max_seconds)
    skip = stream.state.samples
    empty = skip == 0
    if stream.state.ended:
        return
    for part in cut_slices(blocks, geometry.slice_samples, geometry.sample_rate, limit, skip):
        empty = False
        if adds_a_frame(stream.state.chunk, stream.state.samples, len(part), geometry):
            yield stream.step(part, progress=progress)
    if empty:
        raise AudioError("The sound is empty.", "Give a recording with at least one sample.")


def _sample_limit(geometry: ChunkGeometry, max_seconds: float | None) -> int | None:
    if max_seconds is None:
        return None
    if not 0 < max_seconds < float("inf"):
        raise ConfigError(f"max_seconds is {max_seconds}.", "Allowed: above 0.", setting="max_seconds")
    return max(1, round(max_seconds * geometry.sample_rate))
