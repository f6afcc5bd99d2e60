"""The only reader of weight files: find, verify and stream a model; convert and save models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .layout import Replacements
    from .load import load_encoders, load_model, load_vae
    from .parts import ModelParts, open_parts
    from .random_model import random_model
    from .save import export_published, save_model

__all__ = [
    "ModelParts",
    "Replacements",
    "export_published",
    "load_encoders",
    "load_model",
    "load_vae",
    "open_parts",
    "random_model",
    "save_model",
]

# Late, so that the converter's child process and `livetalk convert` do not import the model libraries.
__getattr__ = lazy_names(
    __name__,
    {
        "layout": ("Replacements",),
        "load": ("load_encoders", "load_model", "load_vae"),
        "parts": ("ModelParts", "open_parts"),
        "random_model": ("random_model",),
        "save": ("export_published", "save_model"),
    },
)
