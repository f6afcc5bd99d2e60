"""Speech with phoneme times from flite: voices to evaluate on, never to train on."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from ...errors import ConfigError
from .espeak import Utterance
from .process import check_text, read_events, read_wave, run_synthesiser

FLITE_VOICES: Final = ("slt", "awb", "rms", "kal16")


def speak_flite(text: str, voice: str = "slt", stretch: float = 1.0) -> Utterance:
    """Speak English `text` with flite; `stretch` > 1 is slower.

    Raises:
        MissingDependencyError: flite is not installed.
        TrainingError: it cannot say this text.
        ConfigError: unknown voice, or text with characters other than letters and simple punctuation.
    """
    if voice not in FLITE_VOICES:
        raise ConfigError(f"unknown flite voice {voice!r}", hint=f"one of {', '.join(FLITE_VOICES)}")
    check_text(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        setting = f"duration_stretch={stretch:.3f}"
        command = ["flite", "-voice", voice, "--setf", setting, "-psdur", "-t", text, "-o", str(path)]
        printed = run_synthesiser(command, package="flite")
        samples = read_wave(path)
    return Utterance(samples, read_events(printed.split()))
