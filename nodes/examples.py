"""A picture and a sentence for the workflows of the pack, where Load Image and Load Audio look for files."""

from __future__ import annotations

import importlib.util
import logging
import shutil
from pathlib import Path

from .core import CORE

logger = logging.getLogger("livetalk")

EXAMPLES = {"livetalk_portrait.png": "portrait.png", "livetalk_speech.wav": "demo.wav"}
"""Name in ComfyUI's input folder -> the engine's file."""


def offer_examples(folder: Path) -> None:
    """Copy what is not there yet; a folder that cannot be written is left alone."""
    spec = importlib.util.find_spec(CORE)
    if spec is None or spec.origin is None:
        return
    assets = Path(spec.origin).parent / "assets"
    for name, source in EXAMPLES.items():
        target = folder / name
        try:
            if not target.exists():
                shutil.copyfile(assets / source, target)
        except OSError as error:
            logger.warning("the example %s cannot be put into %s (%s)", name, folder, error.strerror)
