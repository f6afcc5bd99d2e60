"""Samples -> loudness -> windows of per-frame features; the same online and offline."""

from __future__ import annotations

from .encoder import AudioEncoder, FeatureFunction
from .loudness import match_loudness
from .ring import AudioRing, check_samples
from .slices import cut_slices

__all__ = ["AudioEncoder", "AudioRing", "FeatureFunction", "check_samples", "cut_slices", "match_loudness"]
