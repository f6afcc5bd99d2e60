"""What the next chunk is conditioned on: colour match, motion latents, drift; for engine and training."""

from __future__ import annotations

from .border import LEAD_FRAMES, fade_border
from .color_match import ColorReference, color_reference, match_color
from .drift import Appearance, Drift, appearance, measure_drift, sharpness
from .motion import motion_latents

__all__ = [
    "LEAD_FRAMES",
    "Appearance",
    "ColorReference",
    "Drift",
    "appearance",
    "color_reference",
    "fade_border",
    "match_color",
    "measure_drift",
    "motion_latents",
    "sharpness",
]
