"""What a talking model is evaluated on: held-out people, held-out voices, and the true video of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..avatars.avatar import HELD_OUT_SEED, Identity, reference_frame, render_clip
from ..avatars.motion import motion_track
from ..speech.bank import SAMPLES_PER_FRAME
from ..speech.held_out import EvaluationUtterance, evaluation_utterances

Frames = NDArray[np.uint8]

FPS: Final = 25
_SEED: Final = 77
_LIVELINESS: Final = 0.8
_SHORTEST_FRAMES: Final = 100


@dataclass(frozen=True)
class Speaker:
    """What a model is given: one person and what they say.

    Attributes:
        name: Short name of the case.
        identity: Who speaks; never trained on.
        speech: Sound, mouth track and lip closures.
        reference: Picture of the person, uint8 [H,W,3].
    """

    name: str
    identity: Identity
    speech: EvaluationUtterance
    reference: Frames

    @property
    def size(self) -> int:
        """Side of the square picture in pixels."""
        return int(self.reference.shape[0])

    @property
    def opening(self) -> NDArray[np.float32]:
        """The mouth opening that the phonemes ask for [F]."""
        return self.speech.mouth[:, 0]


@dataclass(frozen=True)
class EvaluationCase(Speaker):
    """A speaker with the true video.

    Attributes:
        truth: The renderer's own video of the case, uint8 [F,H,W,3].
        blink: Lid closure that `truth` was drawn with [F].
    """

    truth: Frames
    blink: NDArray[np.float32]


def make_cases(count: int, seconds: float, size: int) -> list[EvaluationCase]:
    """Cases of at most `seconds`, each with its own person; the synthesisers take turns.

    Raises:
        MissingDependencyError: skia-python, a synthesiser or the recordings are not installed.
    """
    voices, rounds = long_utterances(evaluation_utterances(per_voice=1)), 1
    while len(voices) < count:  # not all voices have more to say
        rounds += 1
        voices = long_utterances(evaluation_utterances(per_voice=rounds))
    return [
        make_case(HELD_OUT_SEED + number, cut_speech(speech, seconds), size)
        for number, speech in enumerate(voices[:count])
    ]


def long_case(seconds: float, size: int, seed: int = HELD_OUT_SEED + 100) -> EvaluationCase:
    """One person who speaks for `seconds` with all the voices in turn, for drift over time."""
    return make_case(seed, long_speech(seconds), size)


def long_speech(seconds: float, first: int = 0) -> EvaluationUtterance:
    """All the voices in turn, again and again for `seconds`, beginning with voice number `first`."""
    voices = long_utterances(evaluation_utterances(per_voice=1))
    first %= len(voices)
    total = sum(voice.frames for voice in voices)
    rounds = int(seconds * FPS) // total + 1
    return cut_speech(join_speech([*voices[first:], *voices[:first]] * rounds), seconds)


def long_utterances(utterances: Sequence[EvaluationUtterance]) -> list[EvaluationUtterance]:
    """Those of at least 4 s, ordered so that the synthesisers take turns."""
    groups: dict[str, list[EvaluationUtterance]] = {}
    for utterance in utterances:
        if utterance.frames >= _SHORTEST_FRAMES:
            groups.setdefault(utterance.synthesiser, []).append(utterance)
    turns = zip_longest(*groups.values())
    return [utterance for turn in turns for utterance in turn if utterance is not None]


def cut_speech(speech: EvaluationUtterance, seconds: float) -> EvaluationUtterance:
    """The first `seconds` of an utterance, in whole frames."""
    frames = min(speech.frames, max(1, round(seconds * FPS)))
    return replace(
        speech,
        samples=speech.samples[: frames * SAMPLES_PER_FRAME],
        mouth=speech.mouth[:frames],
        closures=speech.closures[speech.closures < frames / FPS],
    )


def join_speech(parts: Sequence[EvaluationUtterance]) -> EvaluationUtterance:
    """Utterances one after the other."""
    starts = np.cumsum([0, *(part.frames for part in parts[:-1])]) / FPS
    return EvaluationUtterance(
        name="all",
        synthesiser="all",
        voice="all",
        samples=np.concatenate([part.samples for part in parts]),
        mouth=np.concatenate([part.mouth for part in parts]),
        closures=np.concatenate([part.closures + start for part, start in zip(parts, starts, strict=True)]),
    )


def make_speaker(seed: int, speech: EvaluationUtterance, size: int) -> Speaker:
    """The held-out person `seed`, about to say `speech`."""
    identity = Identity.from_seed(seed)
    return Speaker(speech.name, identity, speech, reference_frame(identity, _random(seed), size))


def make_case(seed: int, speech: EvaluationUtterance, size: int) -> EvaluationCase:
    """The held-out person `seed` says `speech`: reference picture and true video."""
    rng = _random(seed)
    identity = Identity.from_seed(seed)
    reference = reference_frame(identity, rng, size)
    motion = motion_track(rng, speech.mouth, _LIVELINESS, FPS)
    truth = render_clip(identity, speech.mouth, motion, size)
    return EvaluationCase(speech.name, identity, speech, reference, truth, motion[:, 3])


def _random(seed: int) -> np.random.Generator:
    return np.random.default_rng([_SEED, seed])
