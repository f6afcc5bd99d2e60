"""How far a drawn face opens its mouth and closes its eyes, and how well the lips follow the speech."""

from __future__ import annotations

from .measure import eye_closure, load_measure, mouth_opening
from .network import EYES, MOUTH, RegionRegressor, RegionSpec
from .scores import amplitude_ratio, closure_hits, count_blinks, lag_correlation

__all__ = [
    "EYES",
    "MOUTH",
    "RegionRegressor",
    "RegionSpec",
    "amplitude_ratio",
    "closure_hits",
    "count_blinks",
    "eye_closure",
    "lag_correlation",
    "load_measure",
    "mouth_opening",
]
