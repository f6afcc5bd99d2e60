"""Closed form from four mouth parameters to the lip geometry that the avatar renderer draws."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

MAX_OPENING = 22.0
"""Height of the fully open mouth interior in canvas units (the canvas is 128 units wide)."""

JAW_DROP = 4.2
"""How far the chin moves down for a fully open mouth, canvas units."""

_UPPER_SHARE = 0.27
"""Share of the opening that lifts the upper lip; the rest lowers the lower lip."""


class MouthShape(NamedTuple):
    """Mouth parameters of one frame: open 0..1, width -1 (rounded) .. 1 (spread), teeth 0..1, tongue 0..1."""

    open: float = 0.0
    width: float = 0.0
    teeth: float = 0.0
    tongue: float = 0.0

    @classmethod
    def from_row(cls, row: Iterable[Any]) -> MouthShape:
        """Take one row [4] of a mouth track and clip it to the valid ranges."""
        opening, width, teeth, tongue = (float(value) for value in row)
        return cls(_clip(opening, 0.0), _clip(width, -1.0), _clip(teeth, 0.0), _clip(tongue, 0.0))


@dataclass(frozen=True)
class LipGeometry:
    """Lip outline relative to the mouth centre, canvas units, y pointing down.

    ``upper``/``lower`` are the extreme y of the inner lip edges, ``corner`` the y of the mouth corners,
    ``upper_round``/``lower_round`` the relative x of the Bezier handles (small = pointed, large = round).
    """

    half_width: float
    height: float
    upper: float
    lower: float
    corner: float
    upper_round: float
    lower_round: float
    upper_lip: float
    lower_lip: float
    teeth_height: float
    tongue_height: float
    jaw_drop: float


def lip_geometry(mouth: MouthShape, half_width: float, smile: float) -> LipGeometry:
    """Compute the lips of ``mouth`` from an identity's relaxed ``half_width`` and corner lift ``smile``."""
    rounded, spread = max(-mouth.width, 0.0), max(mouth.width, 0.0)
    reach = half_width * (1.0 + 0.16 * spread - 0.42 * rounded) * (1.0 - 0.05 * mouth.open)
    height = MAX_OPENING * mouth.open * (1.0 - 0.06 * spread)
    bow = smile * (1.0 - 0.55 * mouth.open) * (1.0 + 0.3 * spread - 0.75 * rounded)
    return LipGeometry(
        half_width=reach,
        height=height,
        upper=bow * 0.5 - height * _UPPER_SHARE,
        lower=bow * 0.5 + height * (1.0 - _UPPER_SHARE),
        corner=-bow * 0.5,
        upper_round=0.62 + 0.3 * rounded + 0.12 * mouth.open,
        lower_round=0.62 + 0.3 * rounded + 0.32 * mouth.open * (1.0 - rounded),
        upper_lip=2.9 + 1.0 * rounded - 0.3 * spread,
        lower_lip=3.9 + 0.9 * rounded - 0.4 * spread,
        teeth_height=(0.22 + 0.78 * mouth.teeth) * min(0.8 * height, 5.2),
        tongue_height=(0.22 + 0.4 * mouth.tongue) * height,
        jaw_drop=JAW_DROP * mouth.open,
    )


def _clip(value: float, low: float) -> float:
    return min(max(value, low), 1.0)
