"""Samples -> loudness -> windows of per-frame features; the same online and offline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "MAX_WHOLE_SECONDS": "slices",
    "AudioEncoder": "encoder",
    "AudioRing": "ring",
    "FeatureFunction": "encoder",
    "check_samples": "ring",
    "collect_clip": "slices",
    "cut_slices": "slices",
    "match_loudness": "loudness",
}


def __getattr__(name: str) -> Any:
    # Late, so that whoever only cuts sound does not import torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
