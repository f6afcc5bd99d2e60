"""Speech with exact phoneme times from libespeak-ng, which speaks two thirds of the training data."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from ...errors import ConfigError, MissingDependencyError
from .visemes import PhonemeEvent, closure_times, mouth_track

SAMPLE_RATE: Final = 16000

_LIBRARY = "libespeak-ng.so.1"
_OUTPUT_SYNCHRONOUS = 2
_PHONEME_EVENTS_AS_IPA = 0x0001 | 0x0002
_DO_NOT_EXIT = 0x8000
_EVENT_END_OF_LIST = 0
_EVENT_PHONEME = 7
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4
_CHARACTERS_UTF8 = 1

# espeak-ng reports a voiceless stop at its burst; the silence before it is the stop's, not the vowel's.
_VOICELESS_STOPS = frozenset("ptkqcʈ")
_LONGEST_GAP_SECONDS = 0.12
_SHORTEST_GAP_SECONDS = 0.02
_SILENCE = 2e-3


@dataclass(frozen=True)
class Utterance:
    """Spoken text: samples [S] float32 in [-1, 1] at 16 kHz and its phonemes in seconds."""

    samples: NDArray[np.float32]
    events: tuple[PhonemeEvent, ...]

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / SAMPLE_RATE

    def mouth(self) -> NDArray[np.float32]:
        """Mouth track [F, 4] of this utterance (see `visemes.mouth_track`)."""
        return mouth_track(self.events, self.seconds)

    def closures(self) -> NDArray[np.float64]:
        """Lip closure times in seconds [n]."""
        return closure_times(self.events)


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of espeak-ng/speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Espeak:
    """The library keeps one global voice and one callback, so this process talks to it through one locked
    object."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise MissingDependencyError(
                f"{_LIBRARY} was not found ({error})",
                hint="install it: apt-get install libespeak-ng1 espeak-ng",
            ) from error
        self.rate: int = self._library.espeak_Initialize(
            _OUTPUT_SYNCHRONOUS, 0, None, _PHONEME_EVENTS_AS_IPA | _DO_NOT_EXIT
        )
        if self.rate <= 0:
            raise MissingDependencyError(
                "espeak-ng found no voice data", hint="install it: apt-get install espeak-ng-data"
            )
        self._lock = threading.Lock()
        self._blocks: list[NDArray[np.int16]] = []
        self._marks: list[tuple[float, str]] = []
        # The object must outlive every call: ctypes does not keep callbacks alive.
        self._callback = _Callback(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, count: int, events: Any) -> int:
        if count > 0 and samples:
            self._blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type != _EVENT_END_OF_LIST:
            event = events[index]
            if event.type == _EVENT_PHONEME:
                symbol = bytes(event.id.string).split(b"\0")[0].decode("utf-8", "ignore")
                self._marks.append((event.audio_position / 1000.0, symbol))
            index += 1
        return 0

    def speak(
        self, text: str, voice: str, rate: int, pitch: int, pitch_range: int
    ) -> tuple[NDArray[np.int16], list[tuple[float, str]]]:
        """Samples [S], and when each phoneme begins in seconds."""
        with self._lock:
            self._blocks, self._marks = [], []
            if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
                raise ConfigError(f"espeak-ng has no voice {voice!r}", hint="list the voices: espeak-ng --voices")
            for parameter, value in (
                (_PARAMETER_RATE, rate),
                (_PARAMETER_PITCH, pitch),
                (_PARAMETER_RANGE, pitch_range),
            ):
                self._library.espeak_SetParameter(parameter, value, 0)
            data = text.encode() + b"\0"
            self._library.espeak_Synth(data, len(data), 0, 1, 0, _CHARACTERS_UTF8, None, None)
            self._library.espeak_Synchronize()
            empty: list[NDArray[np.int16]] = [np.zeros(0, np.int16)]
            return np.concatenate(self._blocks or empty), self._marks


@lru_cache(maxsize=1)
def _espeak() -> _Espeak:
    return _Espeak()


def speak_espeak(text: str, voice: str = "en-us", rate: int = 165, pitch: int = 50, pitch_range: int = 50) -> Utterance:
    """Speak `text`.

    Args:
        voice: espeak-ng voice, optionally with a variant, as in "de+f2".
        rate: words per minute; `pitch` and `pitch_range`: 0..100.

    Raises:
        MissingDependencyError: libespeak-ng or its data is not installed.
        ConfigError: no such voice.
    """
    raw, marks = _espeak().speak(text, voice, rate, pitch, pitch_range)
    samples = resample_poly(raw.astype(np.float32) / 32768.0, SAMPLE_RATE, _espeak().rate).astype(np.float32)
    ends = [start for start, _ in marks[1:]] + [len(samples) / SAMPLE_RATE]
    events = [PhonemeEvent(s, max(s, e), symbol) for (s, symbol), e in zip(marks, ends, strict=True)]
    return Utterance(samples, tuple(_give_gaps_to_stops(samples, events)))


def _give_gaps_to_stops(samples: NDArray[np.float32], events: list[PhonemeEvent]) -> list[PhonemeEvent]:
    moved = list(events)
    for index in range(1, len(moved)):
        event = moved[index]
        if event.symbol.lstrip("ˈˌ")[:1] not in _VOICELESS_STOPS:
            continue
        stop = round(event.start * SAMPLE_RATE)
        first = max(round(moved[index - 1].start * SAMPLE_RATE), stop - round(_LONGEST_GAP_SECONDS * SAMPLE_RATE))
        loud = np.flatnonzero(np.abs(samples[first:stop]) > _SILENCE)
        start = (first + int(loud[-1]) + 1 if len(loud) else first) / SAMPLE_RATE
        if event.start - start >= _SHORTEST_GAP_SECONDS:
            moved[index - 1] = moved[index - 1]._replace(end=start)
            moved[index] = event._replace(start=start)
    return moved
