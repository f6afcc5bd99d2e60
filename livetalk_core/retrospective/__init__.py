"""What the next chunk is conditioned on: colour match and motion latents; for engine and training."""

from __future__ import annotations

from .color_match import ColorReference, color_reference, match_color
from .motion import motion_latents

__all__ = ["ColorReference", "color_reference", "match_color", "motion_latents"]
