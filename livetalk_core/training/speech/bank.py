"""A bank of spoken utterances with mouth tracks, built once in parallel and kept in two plain files."""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ...errors import TrainingError
from ...media import make_folder, write_atomic
from .augment import augment_voice, unit_level
from .espeak import SAMPLE_RATE, Utterance, speak_espeak
from .festival import TRAINING_VOICES, speak_festival
from .text import random_text

SAMPLES_PER_FRAME: Final = 640
HELD_OUT_LANGUAGES: Final = ("pl", "sv", "en-gb-scotland")
HELD_OUT_VARIANTS: Final = ("f4", "m7")
# Repeated names are chosen more often: a third of the speech is English.
_TRAINING_LANGUAGES = (
    "en-us en-us en-us en-us en-us en-us en-us en-us en-us en-us en-us en-us en-gb-x-rp en-gb-x-rp "
    "en-gb-x-rp en-gb-x-rp en-029 en-029 en-gb-x-gbclan en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc en-us-nyc "
    "de de es es-419 it it pt pt-br nl fr-ch fr-be fi ro cs hu id sw la hr da nb et lv lt sk sl tr vi "
    "cy ga ca eo is sq mt eu af ms haw ru uk bg el"
)
TRAINING_LANGUAGES: Final = tuple(_TRAINING_LANGUAGES.split())
_TRAINING_VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m8 f1 f2 f3 f5 croak whisper whisperf klatt klatt2 klatt3 klatt4 klatt5 klatt6 "
    "Alex Alicia Andrea Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco Mario Michael "
    "Mike Nguyen adam anika antonio aunty belinda benjamin boris caleb david ed edward grandma grandpa "
    "gustave iven iven2 john kaukovalta linda marcelo max michel miguel norbert pablo paul pedro quincy "
    "rob robert sandro shelby steph steph2 travis victor zac"
)
TRAINING_VARIANTS: Final = tuple(_TRAINING_VARIANTS.split())

FESTIVAL_SHARE: Final = 0.35
"""Share of a bank's sentences that festival's voices speak, where they are asked for."""
_ENGLISH_VOICE_SHARE = 0.3
# `audio_clips.compose` moves lips as late-told phonemes need; festival's times are right, so they are told late here.
_TOLD_LATE_SECONDS: Final = 0.010
_ORIGINALS_SHARE = 0.1
_ATTEMPTS: Final = 20
_SHORTEST_SECONDS, _FAINTEST = 0.4, 1e-3
_PEAK: Final = 32767.0
_logger = logging.getLogger("livetalk")


@dataclass(frozen=True)
class SpeechBank:
    """Utterances end to end: int16 samples at 16 kHz, float32 mouth [frames, 4] and where each utterance
    starts.

    Each utterance has exactly 640 samples per mouth frame; `starts` [n + 1] counts frames.
    """

    samples: NDArray[np.int16]
    mouth: NDArray[np.float32]
    starts: NDArray[np.int64]
    voices: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def seconds(self) -> float:
        """Length of all utterances."""
        return len(self.samples) / SAMPLE_RATE

    def utterance(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Samples [frames * 640] float32 and mouth [frames, 4] of one utterance."""
        first, last = int(self.starts[index]), int(self.starts[index + 1])
        samples = self.samples[first * SAMPLES_PER_FRAME : last * SAMPLES_PER_FRAME].astype(np.float32) / _PEAK
        return samples, self.mouth[first:last]


Named = tuple[str, Utterance]
"""Name of a voice, and what it said."""

Spoken = tuple[str, NDArray[np.int16], NDArray[np.float32]]
"""Name of a voice, samples [frames * 640] and mouth [frames, 4]."""


def pack_utterance(voice: str, utterance: Utterance) -> Spoken:
    """Cut samples and mouth track to whole frames and store the samples as int16."""
    mouth = utterance.mouth()
    frames = min(len(mouth), len(utterance.samples) // SAMPLES_PER_FRAME)
    samples = np.clip(utterance.samples[: frames * SAMPLES_PER_FRAME], -1.0, 1.0) * _PEAK
    return voice, np.round(samples).astype(np.int16), mouth[:frames]


def make_bank(spoken: Sequence[Spoken]) -> SpeechBank:
    """Join packed utterances.

    Raises:
        TrainingError: there are none.
    """
    if not spoken:
        raise TrainingError("the speech bank would be empty", hint="ask for at least one utterance")
    lengths = [len(mouth) for _, _, mouth in spoken]
    return SpeechBank(
        samples=np.concatenate([samples for _, samples, _ in spoken]),
        mouth=np.concatenate([mouth for _, _, mouth in spoken]).astype(np.float32),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        voices=tuple(voice for voice, _, _ in spoken),
    )


def speak_one(seed: int, festival_share: float = 0.0) -> list[Spoken]:
    """One random sentence by a random voice, in two augmented versions and now and then as it is.

    Raises:
        MissingDependencyError: a synthesiser is not installed.
        TrainingError: no voice could say anything.
    """
    rng = np.random.default_rng([seed, 0])
    speak = _speak_festival if rng.random() < festival_share else _speak_espeak
    voice, utterance = _speak_audibly(rng, speak)
    level = Utterance(unit_level(utterance.samples), utterance.events)
    versions = [augment_voice(utterance, rng) for _ in range(2)]
    if rng.random() < _ORIGINALS_SHARE:
        versions.append(level)
    return [pack_utterance(voice, version) for version in versions]


def _speak_audibly(rng: np.random.Generator, speak: Callable[[np.random.Generator], Named]) -> Named:
    """What is said, by other voices or in other words where there are no sounds for them."""
    failure: TrainingError | None = None
    for _ in range(_ATTEMPTS):
        try:
            voice, utterance = speak(rng)
        except TrainingError as error:
            failure = error
            continue
        if utterance.seconds >= _SHORTEST_SECONDS and np.abs(utterance.samples).max() > _FAINTEST:
            return voice, utterance
    raise failure or TrainingError(f"{_ATTEMPTS} sentences in a row were silent.", "Install the synthesiser again.")


def _speak_espeak(rng: np.random.Generator) -> Named:
    voice = random_voice(rng)
    text = random_text(rng, voice.split("+")[0])
    rate, pitch, spread = int(rng.integers(100, 261)), int(rng.integers(10, 95)), int(rng.integers(5, 96))
    return voice, speak_espeak(text, voice, rate, pitch, spread)


def _speak_festival(rng: np.random.Generator) -> Named:
    english, *others = TRAINING_VOICES
    voice = english if rng.random() < _ENGLISH_VOICE_SHARE else others[int(rng.integers(len(others)))]
    spoken = speak_festival(random_text(rng, voice.language), voice, float(rng.uniform(0.75, 1.35)))
    late = _TOLD_LATE_SECONDS
    events = tuple(e._replace(start=e.start + late, end=e.end + late) for e in spoken.events)
    return voice.name, Utterance(spoken.samples, events)


def random_voice(rng: np.random.Generator) -> str:
    """Name of a training voice of espeak-ng."""
    language = str(rng.choice(TRAINING_LANGUAGES))
    return f"{language}+{rng.choice(TRAINING_VARIANTS)}" if rng.random() < 0.85 else language


def _speak_one(job: tuple[int, float]) -> list[Spoken]:
    return speak_one(*job)


def build_bank(
    utterances: int, seed: int, workers: int = 2, festival_share: float = 0.0
) -> SpeechBank:
    """Speak `utterances` random sentences in `workers` processes, a share of them by festival's voices.

    The same seed gives the same sentences, voices and augmentation; whispering voices may differ in noise.

    Raises:
        MissingDependencyError: a synthesiser is not installed.
    """
    jobs = [(seed * 1_000_000 + index, festival_share) for index in range(utterances)]
    # A fresh interpreter per worker: the synthesiser's library and thread pools do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        groups = pool.map(_speak_one, jobs, chunksize=8)
    bank = make_bank([spoken for group in groups for spoken in group])
    _logger.info("speech bank: %d utterances, %.1f minutes", len(bank), bank.seconds / 60)
    return bank


def save_bank(bank: SpeechBank, path: Path) -> None:
    """Write `path` (.safetensors) and its .json sidecar with the voice names; the former last, and whole.

    Raises:
        OutputError: they cannot be written.
    """
    make_folder(path.parent)
    write_atomic(path.with_suffix(".json"), json.dumps({"format": 1, "voices": bank.voices}))
    tensors = {"samples": bank.samples, "mouth": bank.mouth.astype(np.float16), "starts": bank.starts}
    write_atomic(path, save(tensors))


def load_bank(path: Path) -> SpeechBank:
    """Read what `save_bank` wrote.

    Raises:
        TrainingError: a file is missing or not a speech bank.
    """
    try:
        tensors = load_file(str(path))
        voices = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["voices"]
        return SpeechBank(tensors["samples"], tensors["mouth"].astype(np.float32), tensors["starts"], tuple(voices))
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise TrainingError(f"{path} is not a readable speech bank: {error}", hint="build it again") from error
