"""A fixed set of utterances by voices that no model was trained on, with mouth tracks and lip closures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingDependencyError
from .alignment import align_to_recording
from .augment import unit_level
from .bank import SAMPLES_PER_FRAME
from .espeak import SAMPLE_RATE, Utterance, speak_espeak
from .festival import speak_festival
from .flite import speak_flite
from .process import read_wave
from .text import random_text

SENTENCES: Final = (
    "My brother plays piano in the morning, before people come to buy apples.",
    "Please help me move the big table, because the room is too small for both of us.",
    "Maybe the pepper soup was a bad idea, but mama made a wonderful plum pie.",
    "They asked how many boats could pass under the old bridge by the sea.",
    "A purple balloon jumped over the market, and every child laughed at it.",
    "What time does the next bus leave for the mountain village?",
)
RECORDINGS: Final = Path("/usr/share/sounds/alsa")
_WORDS: Final = {
    "Front_Center": "Front center.",
    "Front_Left": "Front left.",
    "Front_Right": "Front right.",
    "Rear_Center": "Rear center.",
    "Rear_Left": "Rear left.",
    "Rear_Right": "Rear right.",
    "Side_Left": "Side left.",
    "Side_Right": "Side right.",
}
_PAUSE_SECONDS: Final = 0.4
_SEED: Final = 20


@dataclass(frozen=True)
class EvaluationUtterance:
    """Speech to evaluate on: samples [F * 640], mouth [F, 4], lip closures in seconds [n]."""

    name: str
    synthesiser: str
    voice: str
    samples: NDArray[np.float32]
    mouth: NDArray[np.float32]
    closures: NDArray[np.float64]

    @property
    def frames(self) -> int:
        """Video frames over it."""
        return len(self.mouth)


def evaluation_utterances(per_voice: int = 4) -> list[EvaluationUtterance]:
    """The same list on every call: held-out espeak-ng voices, flite, festival and recorded words.

    Args:
        per_voice: utterances per synthesised voice (each joins two sentences, about 8 s).

    Raises:
        MissingDependencyError: a synthesiser or the recordings of alsa-utils are not installed.
    """
    return [*_synthesised(per_voice), *recorded_utterances()]


def _synthesised(per_voice: int) -> list[EvaluationUtterance]:
    speakers: list[tuple[str, str, Callable[[str], Utterance]]] = [
        ("espeak", "en-us+f4", lambda text: speak_espeak(text, "en-us+f4", 150, 55, 60)),
        ("espeak", "en-us+m7", lambda text: speak_espeak(text, "en-us+m7", 165, 40, 50)),
        ("espeak", "en-gb-scotland+m7", lambda text: speak_espeak(text, "en-gb-scotland+m7", 170, 60, 50)),
        ("espeak", "pl+f4", lambda text: speak_espeak(text, "pl+f4", 160, 50, 50)),
        ("espeak", "sv+m7", lambda text: speak_espeak(text, "sv+m7", 160, 50, 50)),
        ("flite", "slt", lambda text: speak_flite(text, "slt")),
        ("flite", "awb", lambda text: speak_flite(text, "awb")),
        ("flite", "rms", lambda text: speak_flite(text, "rms")),
        ("flite", "kal16", lambda text: speak_flite(text, "kal16")),
        ("festival", "kal", speak_festival),
    ]
    found: list[EvaluationUtterance] = []
    for synthesiser, voice, speak in speakers:
        for index in range(per_voice):
            spoken = join([speak(text) for text in _texts(voice, index)])
            found.append(_pack(f"{synthesiser}/{voice}/{index}", synthesiser, voice, spoken))
    return found


def _texts(voice: str, index: int) -> tuple[str, str]:
    if voice[:2] in ("pl", "sv"):
        rng = np.random.default_rng([_SEED, index])
        return random_text(rng, voice[:2], 9), random_text(rng, voice[:2], 9)
    count = len(SENTENCES)
    return SENTENCES[index % count], SENTENCES[(index + 1 + index // count) % count]


def recorded_utterances() -> list[EvaluationUtterance]:
    """Words spoken by a human (alsa-utils' channel names): each recording, and all of them in a row.

    Their phoneme times come from the synthesised reading that fits best, warped onto the recording.

    Raises:
        MissingDependencyError: the recordings, flite or festival are not installed.
    """
    spoken = {name: _aligned_recording(name) for name in _WORDS}
    utterances = [_pack(f"recorded/{name}", "recorded", "alsa", each) for name, each in spoken.items()]
    return [*utterances, _pack("recorded/all", "recorded", "alsa", join(list(spoken.values())))]


@lru_cache(maxsize=len(_WORDS))
def _aligned_recording(name: str) -> Utterance:
    path = RECORDINGS / f"{name}.wav"
    if not path.is_file():
        raise MissingDependencyError(f"{path} is missing", hint="install it: apt-get install alsa-utils")
    text = _WORDS[name]
    voices = ("slt", "rms", "awb")
    readings = [speak_flite(text, voice, stretch) for voice in voices for stretch in (1.0, 1.3)]
    return align_to_recording(unit_level(read_wave(path)), [*readings, speak_festival(text)])


def join(spoken: list[Utterance]) -> Utterance:
    """Utterances one after the other with pauses of 0.4 s between them."""
    pause = np.zeros(int(_PAUSE_SECONDS * SAMPLE_RATE), np.float32)
    samples: list[NDArray[np.float32]] = []
    events = []
    at = 0.0
    for utterance in spoken:
        events += [e._replace(start=e.start + at, end=e.end + at) for e in utterance.events]
        samples += [utterance.samples, pause]
        at += utterance.seconds + _PAUSE_SECONDS
    return Utterance(np.concatenate(samples), tuple(events))


def _pack(name: str, synthesiser: str, voice: str, spoken: Utterance) -> EvaluationUtterance:
    frames = len(spoken.samples) // SAMPLES_PER_FRAME
    samples = unit_level(spoken.samples[: frames * SAMPLES_PER_FRAME])
    closures = spoken.closures()
    return EvaluationUtterance(
        name, synthesiser, voice, samples, spoken.mouth()[:frames], closures[closures < frames / 25]
    )
