"""Samples -> loudness -> windows of per-frame features; the same online and offline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .encoder import AudioEncoder, FeatureFunction
    from .loudness import match_loudness
    from .ring import AudioRing, check_samples
    from .slices import MAX_WHOLE_SECONDS, collect_clip, cut_slices

__all__ = [
    "MAX_WHOLE_SECONDS",
    "AudioEncoder",
    "AudioRing",
    "FeatureFunction",
    "check_samples",
    "collect_clip",
    "cut_slices",
    "match_loudness",
]

# Late, so that whoever only cuts sound does not import torch.
__getattr__ = lazy_names(
    __name__,
    {
        "encoder": ("AudioEncoder", "FeatureFunction"),
        "loudness": ("match_loudness",),
        "ring": ("AudioRing", "check_samples"),
        "slices": ("MAX_WHOLE_SECONDS", "collect_clip", "cut_slices"),
    },
)
