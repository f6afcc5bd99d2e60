"""The only reader of weight files: find, verify and stream a model; convert and save models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "ModelParts": "parts",
    "Replacements": "layout",
    "export_published": "save",
    "load_encoders": "load",
    "load_model": "load",
    "load_vae": "load",
    "open_parts": "parts",
    "random_model": "random_model",
    "save_model": "save",
}


def __getattr__(name: str) -> Any:
    # Late, so that the converter's child process and `livetalk convert` do not import the model libraries.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
