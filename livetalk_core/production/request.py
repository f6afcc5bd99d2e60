"""What is asked for: sound, picture, model, settings and the files that are to be made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

ASSETS = Path(__file__).resolve().parent.parent / "assets"
BUNDLED_PORTRAIT = ASSETS / "portrait.png"
BUNDLED_SPEECH = ASSETS / "demo.wav"


@dataclass(frozen=True)
class VideoRequest:
    """One video to make; what is None comes from the model's defaults or from the saved state.

    Attributes:
        audio: A sound file, or "-" for raw 16 kHz mono s16le samples from standard input.
        output: The .mp4 or .mkv file to write.
        image: The person's picture; None for the bundled portrait.
        model: A model folder, "random:tiny" ..., or None for the embedded model.
        prompt: What the video shows, for models with a text encoder.
        size: Width and height; None for the picture's shape at the model's default area.
        seed, steps, shift, color_strength, mode: See `StreamConfig` and its parts.
        device, dtype: See `load_model`.
        max_seconds: Use only the beginning of the sound.
        report: JSON file that says what was made, how fast, with the digest of every chunk.
        state: File that always holds the state after the newest written chunk.
        resume: A file written with `state`: make only what comes after it.
        compile: Compile the transformer's blocks.
        stdin: Used instead of the process's standard input.
    """

    audio: str
    output: Path
    image: Path | None = None
    model: str | None = None
    prompt: str | None = None
    size: tuple[int, int] | None = None
    seed: int | None = None
    steps: int | None = None
    shift: float | None = None
    color_strength: float | None = None
    mode: Literal["stream", "whole"] | None = None
    device: str = "auto"
    dtype: str = "auto"
    max_seconds: float | None = None
    report: Path | None = None
    state: Path | None = None
    resume: Path | None = None
    compile: bool = False
    stdin: BinaryIO | None = None
