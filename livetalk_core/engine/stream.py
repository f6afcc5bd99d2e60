"""The engine of one loaded model, and the streams opened on it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..audio import MAX_WHOLE_SECONDS, AudioRing, check_samples
from ..chunking import padded_frames, total_frames
from ..config import StreamConfig
from ..errors import AudioError, StateError
from ..models.bundle import ModelBundle
from ..retrospective import Appearance
from ..sampling import NoiseSource, PhiloxNoise
from .conditions import ConditionCache
from .constants import EncodedClip, StreamConstants, audio_encoder, check_fits, stream_constants
from .heap import keep_freed_memory
from .state import StreamIdentity, StreamState, digest
from .step import Chunk, FrameTarget, Progress, Trace, step


class Engine:
    """One model, ready to open streams.

    Args:
        bundle: The loaded model.
        noise: Source of random numbers for all streams; None makes one from each stream's seed.
    """

    def __init__(self, bundle: ModelBundle, noise: NoiseSource | None = None) -> None:
        self.bundle = bundle
        self._noise = noise
        self._conditions = ConditionCache()
        if bundle.device.type == "cpu":
            keep_freed_memory()

    @torch.no_grad()
    def encode_whole(self, samples: NDArray[np.floating], config: StreamConfig) -> EncodedClip:
        """Features of a whole clip for mode "whole".

        Args:
            samples: Sound [S] at the geometry's sample rate, at most `MAX_WHOLE_SECONDS` long.
            config: Settings of the stream.

        Raises:
            AudioError: no sound, too much of it, or samples that are not finite.
            ConfigError: settings that this model cannot follow.
        """
        check_fits(self.bundle, config)
        geometry = config.geometry
        sound = check_samples(samples, geometry.sample_rate)
        seconds = len(sound) / geometry.sample_rate
        if len(sound) == 0:
            raise AudioError("The sound is empty.", "Give a recording with at least one sample.")
        if seconds > MAX_WHOLE_SECONDS:
            raise AudioError(
                f"The sound lasts {seconds:.1f} s; whole mode takes at most {MAX_WHOLE_SECONDS} s.",
                "Use audio mode 'stream'.", seconds=seconds,
            )  # fmt: skip
        frames = total_frames(len(sound), geometry)
        padded = padded_frames(frames, geometry, "whole")
        features = audio_encoder(self.bundle, config).encode_clip(sound, padded)
        return EncodedClip(features, len(sound), frames, digest(torch.from_numpy(sound)))

    def open_stream(
        self,
        config: StreamConfig,
        picture: Image.Image,
        *,
        clip: EncodedClip | None = None,
        context: Tensor | None = None,
        clip_features: Tensor | None = None,
        state: StreamState | None = None,
    ) -> Stream:
        """A stream at its beginning, or where `state` left it.

        Args:
            config: Settings.
            picture: Reference picture, RGB.
            clip: Encoded sound, in whole mode only.
            context: Text features [1,L,text_dim] in place of encoding the prompt.
            clip_features: Image features [1,n,clip_dim] in place of encoding the picture.
            state: Where to continue.

        Raises:
            ConfigError: settings that this model cannot follow.
            ImageError: a picture that cannot be used.
            StateError: the state belongs to another model, picture, sound or other settings.
        """
        noise = PhiloxNoise(config.seed) if self._noise is None else self._noise
        constants = stream_constants(
            self.bundle, config, picture, noise, clip, context, clip_features, self._conditions
        )
        return Stream(constants, state)


class Stream:
    """A stream and where it stands: `step` with the state kept for you."""

    state: StreamState

    def __init__(self, constants: StreamConstants, state: StreamState | None = None) -> None:
        self.constants = constants
        self.restore(state)

    def step(
        self,
        samples: NDArray[np.floating] | None = None,
        trace: Trace | None = None,
        progress: Progress | None = None,
        target: FrameTarget | None = None,
    ) -> Chunk:
        """Make the next chunk; see `engine.step.step`. After an error the stream stands where it stood."""
        chunk, self.state = step(self.constants, self.state, samples, trace, progress, target)
        return chunk

    def restore(self, state: StreamState | None) -> None:
        """Go back to a state of this stream; None is its beginning.

        Raises:
            StateError: the state belongs to another stream.
        """
        self.state = initial_state(self.constants) if state is None else _checked(self.constants, state)


def initial_state(constants: StreamConstants) -> StreamState:
    """The state before the first chunk."""
    length = constants.config.geometry.window_samples if constants.clip is None else 0
    return StreamState(constants.identity, 0, 0, False, None, AudioRing.silent(length))


def _checked(constants: StreamConstants, state: StreamState) -> StreamState:
    """The state, if it belongs to this stream."""
    identity: StreamIdentity = state.identity
    identity.require_same(constants.identity)
    expected = initial_state(constants)
    frames, lookback = constants.config.geometry.motion_latents, constants.config.correction.lookback
    # What a stream keeps of earlier borders grows with its chunks up to a number.
    earlier = max(0, min(state.chunk - 1, lookback - 2)) * frames
    fits = (
        len(state.ring.samples) == len(expected.ring.samples)
        and _are_latents(state.motion, constants, frames if state.chunk else 0)
        and _are_latents(state.history, constants, earlier)
        and _is_anchor(state.anchor, constants, state.chunk)
        and _is_border(state.border, constants, state.chunk)
    )
    if not fits:
        raise StateError(
            "The saved stream has another shape than its settings say.", "The file is damaged: start over."
        )
    return state


def _are_latents(tensor: Tensor | None, constants: StreamConstants, frames: int) -> bool:
    """Whether these are that many latent frames of the stream; None is 0 of them."""
    if tensor is None or frames == 0:
        return tensor is None and frames == 0
    batch, channels, _, height, width = constants.first_motion.shape
    return tensor.shape == (batch, channels, frames, height, width) and tensor.dtype == constants.bundle.dtype


def _is_border(border: Tensor | None, constants: StreamConstants, chunk: int) -> bool:
    """Whether a state before this chunk has the last frame shown, where the settings ask for it."""
    config = constants.config
    wanted = config.correction.border_fade > 0 and chunk > 0
    if border is None or not wanted:
        return border is None and not wanted
    return border.shape == (1, 3, 1, config.height, config.width)


def _is_anchor(anchor: Appearance | None, constants: StreamConstants, chunk: int) -> bool:
    """Whether a state before this chunk has the anchor that its settings ask for."""
    wanted = constants.config.correction.anchor == "first_chunk" and chunk > 0
    if anchor is None or not wanted:
        return anchor is None and not wanted
    own = vars(constants.appearance)
    return all(tensor.shape == own[name].shape for name, tensor in vars(anchor).items())
