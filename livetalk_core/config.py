"""Every knob: frozen, validated, unknown keys refused, before any process or GPU is touched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, get_args

import msgspec

from .errors import ConfigError

MAX_SEED = 2**64 - 1
MAX_PROMPT_CHARACTERS = 20_000
MAX_SIDE = 4096
MAX_LOOKBACK = 5
MAX_BORDER_FADE = 16

Offload = Literal["auto", "none", "encoders"]
"""What waits in host memory: nothing, text and image encoder, or these where the device is too small for them."""

Anchor = Literal["reference", "first_chunk"]

T = TypeVar("T", bound="Settings")


def require(ok: bool, name: str, value: object, allowed: str) -> None:
    """Refuse a value of a setting that is not `ok`, with what is allowed in words.

    Raises:
        ConfigError: it is not.
    """
    if not ok:
        raise ConfigError(f"{name} is {value!r}.", f"Allowed: {allowed}.", setting=name)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all settings: immutable, keyword-only, unknown keys refused."""


class ChunkGeometry(Settings, frozen=True, kw_only=True):
    """How video frames, audio samples and latents line up, by default as published.

    A chunk has `frames` video frames of which the first `motion_frames` repeat the end of the previous chunk.
    """

    frames: int = 33
    motion_frames: int = 5
    fps: int = 25
    sample_rate: int = 16_000
    window_seconds: int = 8
    temporal_stride: int = 4
    spatial_stride: int = 8

    def __post_init__(self) -> None:
        require(self.temporal_stride >= 1, "temporal_stride", self.temporal_stride, "1 or more")
        require(self.spatial_stride >= 1, "spatial_stride", self.spatial_stride, "1 or more")
        for name in ("frames", "motion_frames"):
            value = getattr(self, name)
            ok = 1 <= value <= 1025 and (value - 1) % self.temporal_stride == 0
            require(ok, name, value, f"1 plus a multiple of {self.temporal_stride}, at most 1025")
        require(self.motion_frames < self.frames, "motion_frames", self.motion_frames, f"below frames = {self.frames}")
        require(1 <= self.fps <= 120, "fps", self.fps, "1 to 120")
        require(self.sample_rate % self.fps == 0, "sample_rate", self.sample_rate, f"a multiple of fps = {self.fps}")
        require(1 <= self.window_seconds <= 120, "window_seconds", self.window_seconds, "1 to 120")
        require(self.window_frames >= self.frames, "window_seconds", self.window_seconds, "at least one chunk")

    @property
    def latent_frames(self) -> int:
        """Latent frames of a chunk (33 frames -> 9)."""
        return 1 + (self.frames - 1) // self.temporal_stride

    @property
    def motion_latents(self) -> int:
        """Latent frames of the motion frames (5 frames -> 2)."""
        return 1 + (self.motion_frames - 1) // self.temporal_stride

    @property
    def slice_frames(self) -> int:
        """New frames a chunk brings (28)."""
        return self.frames - self.motion_frames

    @property
    def samples_per_frame(self) -> int:
        """Audio samples behind one video frame (640)."""
        return self.sample_rate // self.fps

    @property
    def slice_samples(self) -> int:
        """Audio samples behind the new frames of a chunk (17,920)."""
        return self.slice_frames * self.samples_per_frame

    @property
    def window_frames(self) -> int:
        """Video frames covered by the sliding audio window (200)."""
        return self.window_seconds * self.fps

    @property
    def window_samples(self) -> int:
        """Audio samples in the sliding window (128,000)."""
        return self.window_seconds * self.sample_rate


class SamplerConfig(Settings, frozen=True, kw_only=True):
    """Few-step sampling: number of model evaluations and the published time shift."""

    steps: int = 4
    shift: float = 5.0

    def __post_init__(self) -> None:
        require(1 <= self.steps <= 1000, "steps", self.steps, "1 to 1000")
        require(0.01 <= self.shift <= 100, "shift", self.shift, "0.01 to 100")


class CorrectionConfig(Settings, frozen=True, kw_only=True):
    """What the next chunk is conditioned on; `color_strength` 1, `lookback` 0 and `border_fade` 0 are the published
    step.

    Attributes:
        color_strength: Share of the colour match to the reference, 0 to 1.
        lookback: From how many of the last chunk borders the motion latents are made anew when a chunk has drifted;
            0 never does.
        drift_threshold: Drift (`retrospective.Drift.score`, 1 is a visible difference) above which that happens;
            0 does it after every chunk.
        renoise: Share of noise that the motion latents are given before they are denoised again: 0 changes nothing, 1
            keeps nothing of them. The published sampler's last level, .625, is one that models are trained at.
        anchor: What drift is measured against.
        border_fade: Over how many frames of a chunk its first frame's difference to the last one shown fades; 0 shows
            the chunk as it is. The end that the next chunk is conditioned on should lie beyond.
    """

    color_strength: float = 1.0
    lookback: int = 0
    drift_threshold: float = 1.0
    renoise: float = 0.625
    anchor: Anchor = "reference"
    border_fade: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.color_strength <= 1, "color_strength", self.color_strength, "0 to 1")
        require(0 <= self.lookback <= MAX_LOOKBACK, "lookback", self.lookback, f"0 to {MAX_LOOKBACK}")
        require(0 <= self.drift_threshold <= 100, "drift_threshold", self.drift_threshold, "0 to 100")
        require(0 <= self.renoise <= 1, "renoise", self.renoise, "0 to 1")
        require(0 <= self.border_fade <= MAX_BORDER_FADE, "border_fade", self.border_fade, f"0 to {MAX_BORDER_FADE}")
        anchors = get_args(Anchor)
        require(self.anchor in anchors, "anchor", self.anchor, " or ".join(anchors))


class AudioConfig(Settings, frozen=True, kw_only=True):
    """How sound is encoded: per chunk on a sliding window, or the whole clip at once."""

    mode: Literal["stream", "whole"] = "stream"
    loudness: float = -23.0
    context: int = 2

    def __post_init__(self) -> None:
        require(-70 <= self.loudness <= 0, "loudness", self.loudness, "-70 to 0 LUFS")
        require(0 <= self.context <= 16, "context", self.context, "0 to 16 frames on each side")


class StreamConfig(Settings, frozen=True, kw_only=True):
    """Everything that decides the pixels of one stream besides model, picture and sound."""

    width: int
    height: int
    seed: int = 9999
    prompt: str = ""
    geometry: ChunkGeometry = ChunkGeometry()
    sampler: SamplerConfig = SamplerConfig()
    correction: CorrectionConfig = CorrectionConfig()
    audio: AudioConfig = AudioConfig()

    def __post_init__(self) -> None:
        # A patch is 2 latents wide, a latent `spatial_stride` pixels: 16 pixels in the published model.
        step = 2 * self.geometry.spatial_stride
        for name in ("width", "height"):
            value = getattr(self, name)
            require(value > 0 and value % step == 0 and value <= MAX_SIDE, name, value,
                     f"a multiple of {step} from {step} to {MAX_SIDE}")
        require(0 <= self.seed <= MAX_SEED, "seed", self.seed, f"0 to {MAX_SEED}")
        require(len(self.prompt) <= MAX_PROMPT_CHARACTERS, "prompt", f"{len(self.prompt)} characters long",
                 f"at most {MAX_PROMPT_CHARACTERS} characters")


def decode_config(kind: type[T], data: bytes | Mapping[str, Any], source: str) -> T:
    """Build settings from JSON bytes or a mapping.

    Args:
        kind: The settings class.
        data: JSON text or a plain mapping.
        source: Where it came from, for the error message (a file, "command line" ...).

    Raises:
        ConfigError: not JSON, unknown key, wrong type or value out of range.
    """
    try:
        plain = json.loads(data) if isinstance(data, bytes | bytearray) else dict(data)
        return msgspec.convert(plain, type=kind, strict=True)
    except (ValueError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: {error}", "Correct the setting and try again.", source=source) from error
