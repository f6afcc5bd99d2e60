"""Random text to speak: common English words and pronounceable syllables in several scripts."""

from __future__ import annotations

from typing import Final

import numpy as np

_COMMON_WORDS = (
    "hello my friend we move people time about water never before really big small question answer "
    "would their there which could other number first sound place where after great little still work "
    "years world house again animal point mother father build earth light country school every keep "
    "start city under story while along might something seem next hard open example begin life always "
    "those both paper together group often important until children feet mile river care second enough "
    "plain usual young ready above ever red list though feel talk bird soon body dog family direct "
    "leave song measure product black short wind rock space covered fast several hold himself toward "
    "five step morning passed vowel true hundred pattern table north slowly money farm pulled draw "
    "voice seen cold cried plan notice south sing war ground fall king town unit figure certain field "
    "travel wood fire upon coffee video avatar model camera computer streaming happy beautiful "
    "wonderful blue yellow purple orange moon mountain ocean weather today tomorrow thank you welcome "
    "goodbye please maybe because perhaps problem remember baby bubble mama papa apple pepper marble "
    "bamboo piano opera yes no okay oh wow hey the and of to in is that it was for on are with as at be "
    "this have from or had by but what all were when your can said an each she do how if will up then "
    "them these so some her make like him into has look two more write go see way could than been who "
    "its now long down day did get come made may part garage vision judge change church thought father "
    "thirty breathe smooth boy toy voice cow loud sharp fish shoe just jump young use member home "
    "become company employ"
)
_WORDS: Final = tuple(_COMMON_WORDS.split())

_ONSETS: Final = ("b", "p", "m", "t", "d", "k", "g", "s", "f", "v", "l", "r", "n", "z", "h", "b", "p", "m")
_CLUSTERS: Final = ("", "", "", "st", "pl", "br", "tr", "kl", "sp", "fr", "sk", "gr", "pr", "bl")
_NUCLEI: Final = ("a", "e", "i", "o", "u", "a", "o", "ei", "ai", "au", "ia", "oi", "eu")
_CODAS: Final = ("", "", "", "n", "m", "s", "l", "r", "t", "p", "k")

_CYRILLIC: Final = str.maketrans(dict(zip("abdefghiklmnoprstuvz", "абдефгхиклмнопрстувз", strict=True)))
_GREEK: Final = str.maketrans(dict(zip("abdefghiklmnoprstuvz", "αβδεφγχικλμνοπρστυβζ", strict=True)))
_SCRIPTS: Final = {
    **dict.fromkeys(("ru", "uk", "bg", "sr", "mk", "be", "kk"), _CYRILLIC),
    "el": _GREEK,
}


def random_text(rng: np.random.Generator, language: str = "en", words: int | None = None) -> str:
    """A sentence of `words` (default 3..11) words: English words for English, mostly syllables elsewhere.

    Args:
        language: espeak-ng language code; it chooses the script of the syllables.
    """
    english = rng.random() < (0.8 if language.startswith("en") else 0.15 if language not in _SCRIPTS else 0.0)
    count = int(rng.integers(3, 12)) if words is None else words
    parts: list[str] = []
    for index in range(count):
        word = str(rng.choice(_WORDS)) if english else _invented_word(rng)
        comma = "," if index + 1 < count and rng.random() < 0.12 else ""
        parts.append(word + comma)
    text = " ".join(parts).translate(_SCRIPTS.get(language, {}))
    return text[0].upper() + text[1:] + ("?" if rng.random() < 0.2 else ".")


def _invented_word(rng: np.random.Generator) -> str:
    syllables: list[str] = []
    for _ in range(int(rng.integers(1, 5))):
        onset = rng.choice(_ONSETS) if rng.random() < 0.7 else rng.choice(_CLUSTERS)
        syllables.append(f"{onset}{rng.choice(_NUCLEI)}{rng.choice(_CODAS)}")
    return "".join(syllables)
