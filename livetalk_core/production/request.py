"""What is asked for: sound, picture, model, settings and the files that are to be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from ..config import Anchor, ChunkGeometry, CorrectionConfig, Offload
from ..daemon.daemon_config import DaemonConfig

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUNDLED_PORTRAIT = ASSETS / "portrait.png"
BUNDLED_SPEECH = ASSETS / "demo.wav"


@dataclass(frozen=True, eq=False)
class Recording:
    """Sound that is in memory already.

    Attributes:
        samples: Mono float32 [S] in [-1,1].
        sample_rate: Samples per second, any.
        name: What it is called in messages and in the report.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    name: str = "the given sound"


@dataclass(frozen=True, eq=False)
class VideoRequest:
    """One video to make; what is None comes from the model's defaults or from the saved state.

    Attributes:
        audio: A sound file, "-" for raw 16 kHz mono s16le samples from standard input, or a recording.
        output: The .mp4 or .mkv file to write.
        image: The person's picture, as a file or as it is; None for the bundled portrait.
        model: A model folder, "random:tiny" ..., or None for the embedded model.
        prompt: What the video shows, for models with a text encoder.
        context: Text features [1,L,text_dim] in place of encoding the prompt.
        clip_features: Image features [1,n,clip_dim] in place of encoding the picture.
        size: Width and height; None for the picture's shape at the model's default area.
        seed, steps, shift, mode, loudness: See `StreamConfig` and its parts.
        color_strength, border_fade, lookback, drift_threshold, renoise, anchor: See `CorrectionConfig`; each goes
            before that of `correction`.
        geometry, correction: Chunk lengths, and what the next chunk is conditioned on.
        device, dtype, offload: See `load_model`.
        max_seconds: Use only the beginning of the sound.
        report: JSON file that says what was made, how fast, with the digest of every chunk.
        state: File that always holds the state after the newest written chunk.
        resume: A file written with `state`: make only what comes after it.
        compile: Compile the transformer's blocks.
        world_size: Compute on this many ranks, processes that a daemon owns; None computes in this process.
        devices: GPUs of the ranks, by number, one for each; None for the first ones.
        attention: How ranks share attention: "auto", "torch" or "xfuser".
        detached: Leave the daemon running for the next production, until it has been idle for its timeout.
        daemon: What else to ask of the daemon: deadlines, restarts, timeouts, folders.
        stop: Asked at least every 50 ms while waiting and between denoising steps; True ends the production
            like Ctrl-C. Called on the thread that produces.
        stdin: Used instead of the process's standard input.
    """

    audio: str | Recording
    output: Path
    image: Path | Image.Image | None = None
    model: str | None = None
    prompt: str | None = None
    context: Tensor | None = None
    clip_features: Tensor | None = None
    size: tuple[int, int] | None = None
    seed: int | None = None
    steps: int | None = None
    shift: float | None = None
    color_strength: float | None = None
    border_fade: int | None = None
    lookback: int | None = None
    drift_threshold: float | None = None
    renoise: float | None = None
    anchor: Anchor | None = None
    mode: Literal["stream", "whole"] | None = None
    loudness: float | None = None
    geometry: ChunkGeometry | None = None
    correction: CorrectionConfig | None = None
    device: str = "auto"
    dtype: str = "auto"
    offload: Offload = "auto"
    max_seconds: float | None = None
    report: Path | None = None
    state: Path | None = None
    resume: Path | None = None
    compile: bool = False
    world_size: int | None = None
    devices: tuple[int, ...] | None = None
    attention: str = "auto"
    detached: bool = False
    daemon: DaemonConfig | None = None
    stop: Callable[[], bool] | None = None
    stdin: BinaryIO | None = None

    @property
    def sound_name(self) -> str:
        """What the sound is called."""
        return self.audio.name if isinstance(self.audio, Recording) else self.audio

    @property
    def image_name(self) -> str:
        """What the picture is called."""
        if self.image is None:
            return BUNDLED_PORTRAIT.name
        return str(self.image) if isinstance(self.image, Path) else "the given picture"
