"""Synthesisers that are programs: run one, read the sound and the phoneme times it leaves."""

from __future__ import annotations

import re
import subprocess
import wave
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ...errors import ConfigError, MissingDependencyError, TrainingError
from .espeak import SAMPLE_RATE
from .visemes import PhonemeEvent

_PAUSES: Final = frozenset(("pau", "h#", "brth", "#", "##", "_"))
_TIMEOUT_SECONDS = 60
_SPEAKABLE = re.compile(r"[A-Za-zА-Яа-я ,.?!'-]+")


def check_text(text: str) -> None:
    """Refuse text that a script or a command line could read as anything but words.

    Raises:
        ConfigError: other characters than letters, spaces and simple punctuation, or a leading hyphen.
    """
    if not _SPEAKABLE.fullmatch(text) or text.startswith("-"):
        raise ConfigError(f"text {text!r} cannot be spoken here", hint="use letters, spaces and , . ? ! ' - only")


def run_synthesiser(command: list[str], package: str) -> str:
    """What `command` printed.

    Raises:
        MissingDependencyError: the program of the Debian `package` is missing.
        TrainingError: it failed, as voices do on words for whose sounds they have no recording.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS)
    except FileNotFoundError as error:
        raise MissingDependencyError(
            f"{command[0]} is not installed", hint=f"install it: apt-get install {package}"
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise TrainingError(
            f"{command[0]} failed: {error}",
            hint=f"try other words; if it always fails: apt-get install --reinstall {package}",
        ) from error
    return done.stdout


def read_wave(path: Path) -> NDArray[np.float32]:
    """First channel of a 16-bit WAV file as float32 [S] at 16 kHz."""
    with wave.open(str(path), "rb") as file:
        rate, channels = file.getframerate(), file.getnchannels()
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    samples = raw.reshape(-1, channels)[:, 0].astype(np.float32) / 32768.0
    if rate == SAMPLE_RATE:
        return samples
    return np.asarray(resample_poly(samples, SAMPLE_RATE, rate), dtype=np.float32)


def read_events(tokens: list[str], delay: float = 0.0) -> tuple[PhonemeEvent, ...]:
    """Read "phone:end_seconds" tokens, moving all times later by `delay` seconds."""
    events: list[PhonemeEvent] = []
    start = 0.0
    for token in tokens:
        phone, _, number = token.rpartition(":")
        if not phone:
            continue
        end = float(number) + delay
        events.append(PhonemeEvent(start, end, "" if phone in _PAUSES else phone))
        start = end
    return tuple(events)
