"""Seeded identities of the procedural avatar: colours, hair style and face proportions."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from ...errors import ConfigError

RGB = tuple[int, int, int]

HELD_OUT_SEED = 1_000_000
"""Identities with this seed or a larger one are kept for evaluation and never trained on."""

PORTRAIT_SEED = 1_000_057
"""Held-out identity of the portrait that comes with the package (assets/portrait.png)."""

MOUTH_INTERIOR: RGB = (92, 14, 34)
"""Colour of the open mouth, the same for all identities so that its area measures the opening."""

HAIR_STYLES = (
    "crop",
    "side_part",
    "quiff",
    "bun",
    "long",
    "waves",
    "curly",
    "afro",
    "bob",
    "buzz",
    "bald",
    "cap",
    "scarf",
)
_HAIR_WEIGHTS = (1.2, 1.2, 1.0, 1.0, 1.2, 1.0, 1.0, 0.9, 1.2, 0.5, 0.5, 0.6, 0.7)
_BEARD_STYLES = frozenset({"crop", "side_part", "quiff", "buzz", "bald", "cap", "curly"})
FRINGES = ("swept", "bangs", "middle", "round")
COLLARS = ("crew", "vneck", "hood", "shirt")
BACKDROPS = ("gradient", "disc", "hill", "arch")
NOSES = ("hook", "button", "arc")

_SKIN: tuple[RGB, ...] = (
    (255, 223, 198),
    (247, 205, 172),
    (234, 184, 142),
    (211, 154, 110),
    (176, 120, 80),
    (138, 91, 61),
)
_NATURAL_HAIR: tuple[RGB, ...] = (
    (38, 32, 40),
    (62, 40, 34),
    (92, 56, 38),
    (132, 80, 46),
    (176, 76, 40),
    (226, 176, 92),
    (242, 208, 136),
    (205, 205, 214),
)
_NATURAL_WEIGHTS = (3.0, 3.0, 2.5, 2.0, 1.6, 1.4, 1.0, 0.8)
_FASHION_HAIR: tuple[RGB, ...] = (
    (236, 110, 150),
    (64, 160, 168),
    (128, 98, 196),
    (240, 128, 92),
    (70, 110, 190),
)
_LIPS: tuple[RGB, ...] = ((214, 62, 84), (226, 84, 96), (196, 56, 96), (232, 96, 84))
_IRIS: tuple[RGB, ...] = ((84, 52, 34), (52, 112, 176), (66, 128, 92), (128, 82, 38), (44, 40, 52))
_PALETTES: tuple[tuple[RGB, RGB, RGB, RGB], ...] = (
    # backdrop light, backdrop deep, clothes, accent
    ((190, 226, 240), (122, 184, 220), (44, 82, 130), (250, 246, 236)),
    ((253, 226, 164), (248, 188, 98), (36, 110, 116), (255, 246, 226)),
    ((206, 236, 214), (134, 204, 172), (232, 104, 82), (255, 240, 222)),
    ((226, 212, 246), (174, 152, 226), (250, 186, 72), (84, 56, 132)),
    ((252, 208, 208), (240, 148, 156), (46, 62, 104), (255, 238, 228)),
    ((200, 224, 255), (130, 166, 240), (240, 92, 110), (255, 244, 236)),
    ((176, 226, 222), (92, 186, 184), (244, 196, 82), (38, 86, 98)),
    ((220, 234, 190), (168, 204, 118), (96, 66, 140), (250, 240, 220)),
    ((64, 92, 150), (40, 58, 110), (240, 136, 92), (255, 236, 214)),
    ((52, 122, 126), (28, 84, 96), (244, 210, 120), (255, 246, 226)),
    ((126, 96, 170), (84, 60, 132), (120, 208, 196), (248, 240, 255)),
    ((255, 214, 178), (250, 160, 122), (60, 76, 140), (255, 242, 230)),
    ((214, 222, 234), (158, 174, 200), (204, 66, 82), (250, 246, 240)),
    ((246, 214, 232), (226, 156, 196), (40, 122, 120), (255, 244, 246)),
)

_T = TypeVar("_T")


def require_trainable(first_seed: int, count: int) -> None:
    """Raise ConfigError where `count` seeds from the first on reach those of the people kept for evaluation."""
    if first_seed < 0 or first_seed + count > HELD_OUT_SEED:
        raise ConfigError(
            f"Seeds {first_seed} to {first_seed + count - 1} are not those of {count} people to learn from.",
            f"Take seeds from 0 to {HELD_OUT_SEED - 1}: the others are kept for evaluation.", setting="first_seed",
        )  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """All attributes of one avatar; hashable, lengths in units of the 128-unit canvas, colours as RGB."""

    seed: int
    skin: RGB
    skin_shade: RGB
    blush: RGB
    lip: RGB
    lip_line: RGB
    hair: RGB
    hair_shade: RGB
    hair_shine: RGB
    brow: RGB
    iris: RGB
    backdrop_light: RGB
    backdrop_deep: RGB
    clothes: RGB
    clothes_shade: RGB
    accent: RGB
    frame: RGB
    hair_style: str
    fringe: str
    collar: str
    backdrop: str
    nose: str
    beard: str
    glasses: bool
    earrings: bool
    lashes: bool
    center: tuple[float, float]
    face_width: float
    face_height: float
    jaw: float
    eye_x: float
    eye_y: float
    eye_width: float
    eye_height: float
    iris_radius: float
    brow_width: float
    brow_tilt: float
    mouth_y: float
    mouth_width: float
    smile: float

    @classmethod
    def from_seed(cls, seed: int) -> Identity:
        """Draw an identity; the same seed always gives the same identity."""
        rng = np.random.default_rng([seed, 0x11FE])
        style = _pick(rng, HAIR_STYLES, _HAIR_WEIGHTS)
        dyed = bool(rng.random() < 0.08)
        lashes = bool(rng.random() < (0.9 if style in ("bun", "long", "waves", "bob", "scarf") else 0.25))
        return cls(
            seed=seed,
            hair_style=style,
            lashes=lashes,
            **_colours(rng, dyed),
            **_features(rng, style, lashes, dyed),
            **_proportions(rng),
        )


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """Blend two colours; ``share`` is the part of ``second``."""
    red, green, blue = (round((1.0 - share) * a + share * b) for a, b in zip(first, second, strict=True))
    return red, green, blue


def _pick(rng: np.random.Generator, options: tuple[_T, ...], weights: tuple[float, ...] | None = None) -> _T:
    if weights is None:
        return options[int(rng.integers(len(options)))]
    shares = np.asarray(weights) / sum(weights)
    return options[int(rng.choice(len(options), p=shares))]


def _jitter(rng: np.random.Generator, colour: RGB, hue: float, amount: float) -> RGB:
    h, s, v = colorsys.rgb_to_hsv(*(c / 255.0 for c in colour))
    h = (h + rng.uniform(-hue, hue)) % 1.0
    s = min(max(s + rng.uniform(-amount, amount), 0.0), 1.0)
    v = min(max(v + rng.uniform(-amount, amount), 0.0), 1.0)
    red, green, blue = (round(c * 255.0) for c in colorsys.hsv_to_rgb(h, s, v))
    return red, green, blue


def _deepen(colour: RGB) -> RGB:
    """Darken without greying: lower value, more saturation, hue slightly towards red."""
    h, s, v = colorsys.rgb_to_hsv(*(c / 255.0 for c in colour))
    red, green, blue = (
        round(c * 255.0) for c in colorsys.hsv_to_rgb((h - 0.02) % 1.0, min(s * 1.12, 1.0), v * 0.8)
    )
    return red, green, blue


def _distance(first: RGB, second: RGB) -> int:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


def _hair_colour(rng: np.random.Generator, skin: RGB, backdrop: RGB, dyed: bool) -> RGB:
    """Draw a hair colour that stands out from the skin and from the backdrop."""
    while True:
        if dyed:
            hair = _jitter(rng, _pick(rng, _FASHION_HAIR), 0.02, 0.04)
        else:
            hair = _jitter(rng, _pick(rng, _NATURAL_HAIR, _NATURAL_WEIGHTS), 0.008, 0.03)
        if _distance(hair, skin) > 110 and _distance(hair, backdrop) > 110:
            return hair


def _colours(rng: np.random.Generator, dyed: bool) -> dict[str, Any]:
    skin = _jitter(rng, _pick(rng, _SKIN), 0.006, 0.015)
    while True:
        light, deep, clothes, accent = _pick(rng, _PALETTES)
        if min(_distance(skin, light), _distance(skin, deep)) > 75:
            break
    hue = 0.015
    light, deep = _jitter(rng, light, hue, 0.02), _jitter(rng, deep, hue, 0.03)
    clothes, accent = _jitter(rng, clothes, hue, 0.03), _jitter(rng, accent, hue, 0.01)
    hair = _hair_colour(rng, skin, deep, dyed)
    lip = mix(skin, _pick(rng, _LIPS), float(rng.uniform(0.68, 0.9)))
    return {
        "skin": skin,
        "skin_shade": mix(skin, (132, 44, 40), 0.26),
        "blush": mix(skin, (255, 92, 92), 0.3),
        "lip": lip,
        "lip_line": mix(lip, MOUTH_INTERIOR, 0.62),
        "hair": hair,
        "hair_shade": _deepen(hair),
        "hair_shine": mix(hair, (255, 244, 230), 0.16),
        "brow": mix(hair, (40, 24, 26), 0.55),
        "iris": _pick(rng, _IRIS),
        "backdrop_light": light,
        "backdrop_deep": deep,
        "clothes": clothes,
        "clothes_shade": _deepen(clothes),
        "accent": accent,
        "frame": _pick(rng, ((42, 38, 48), (120, 44, 48), (36, 62, 104))),
    }


def _features(rng: np.random.Generator, style: str, lashes: bool, dyed: bool) -> dict[str, Any]:
    bearded = style in _BEARD_STYLES and not (lashes or dyed) and rng.random() < 0.38
    return {
        "fringe": _pick(rng, FRINGES),
        "collar": _pick(rng, COLLARS),
        "backdrop": _pick(rng, BACKDROPS),
        "nose": _pick(rng, NOSES),
        "beard": _pick(rng, ("full", "goatee", "moustache")) if bearded else "",
        "glasses": bool(rng.random() < 0.15),
        "earrings": bool(lashes and style != "scarf" and rng.random() < 0.45),
    }


def _proportions(rng: np.random.Generator) -> dict[str, Any]:
    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    return {
        "center": (64.0 + between(-1.2, 1.2), 58.0 + between(-1.2, 1.2)),
        "face_width": between(35.0, 38.0),
        "face_height": between(43.0, 46.0),
        "jaw": between(0.70, 0.80),
        "eye_x": between(15.6, 17.2),
        "eye_y": between(-5.0, -3.0),
        "eye_width": between(7.6, 8.8),
        "eye_height": between(6.6, 7.6),
        "iris_radius": between(5.3, 5.9),
        "brow_width": between(2.8, 3.8),
        "brow_tilt": between(-1.2, 1.0),
        "mouth_y": between(23.0, 24.5),
        "mouth_width": between(13.6, 15.2),
        "smile": between(2.2, 3.8),
    }
