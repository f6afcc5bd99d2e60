"""Speech with phoneme times from flite and festival: voices to evaluate on, never to train on."""

from __future__ import annotations

import re
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ...errors import ConfigError, MissingDependencyError
from .espeak import SAMPLE_RATE, Utterance
from .visemes import PhonemeEvent

FLITE_VOICES: Final = ("slt", "awb", "rms", "kal16")
_PAUSES: Final = frozenset(("pau", "h#", "brth"))
_TIMEOUT_SECONDS = 60
# Measured: edges of fricatives and closures lie this much after festival's segment ends (smoothed joins).
_FESTIVAL_DELAY_SECONDS = 0.010
_SPEAKABLE = re.compile(r"[A-Za-z ,.?!'-]+")

_FESTIVAL_SCRIPT = """
(Parameter.set 'Duration_Stretch {stretch})
(set! spoken (utt.synth (Utterance Text "{text}")))
(utt.save.wave spoken "{wave}" 'riff)
(mapcar
 (lambda (s) (format t "%s:%f\\n" (item.name s) (item.feat s "end")))
 (utt.relation.items spoken 'Segment))
"""


def speak_flite(text: str, voice: str = "slt", stretch: float = 1.0) -> Utterance:
    """Speak English `text` with flite; `stretch` > 1 is slower.

    Raises:
        MissingDependencyError: flite is not installed.
        ConfigError: unknown voice, or text with characters other than letters and simple punctuation.
    """
    if voice not in FLITE_VOICES:
        raise ConfigError(f"unknown flite voice {voice!r}", hint=f"one of {', '.join(FLITE_VOICES)}")
    _check_text(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        setting = f"duration_stretch={stretch:.3f}"
        command = ["flite", "-voice", voice, "--setf", setting, "-psdur", "-t", text, "-o", str(path)]
        printed = _run(command, package="flite")
        samples = read_wave(path)
    return Utterance(samples, _events(printed.split()))


def speak_festival(text: str, stretch: float = 1.0) -> Utterance:
    """Speak English `text` with festival's diphone voice (kal_diphone).

    Raises:
        MissingDependencyError: festival is not installed.
        ConfigError: text with characters other than letters and simple punctuation.
    """
    _check_text(text)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        script = Path(folder) / "speech.scm"
        script.write_text(_FESTIVAL_SCRIPT.format(stretch=f"{stretch:.3f}", text=text, wave=path), encoding="ascii")
        printed = _run(["festival", "-b", str(script)], package="festival festvox-kallpc16k")
        samples = read_wave(path)
    return Utterance(samples, _events(printed.split(), delay=_FESTIVAL_DELAY_SECONDS))


def read_wave(path: Path) -> NDArray[np.float32]:
    """First channel of a 16-bit WAV file as float32 [S] at 16 kHz."""
    with wave.open(str(path), "rb") as file:
        rate, channels = file.getframerate(), file.getnchannels()
        raw = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
    samples = raw.reshape(-1, channels)[:, 0].astype(np.float32) / 32768.0
    if rate == SAMPLE_RATE:
        return samples
    return np.asarray(resample_poly(samples, SAMPLE_RATE, rate), dtype=np.float32)


def _check_text(text: str) -> None:
    # The text goes into a festival script and onto a command line: refuse what could be read as syntax there.
    if not _SPEAKABLE.fullmatch(text) or text.startswith("-"):
        raise ConfigError(f"text {text!r} cannot be spoken here", hint="use letters, spaces and , . ? ! ' - only")


def _run(command: list[str], package: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_SECONDS)
    except FileNotFoundError as error:
        raise MissingDependencyError(
            f"{command[0]} is not installed", hint=f"install it: apt-get install {package}"
        ) from error
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise MissingDependencyError(
            f"{command[0]} failed: {error}", hint=f"reinstall it: apt-get install --reinstall {package}"
        ) from error
    return done.stdout


def _events(tokens: list[str], delay: float = 0.0) -> tuple[PhonemeEvent, ...]:
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
