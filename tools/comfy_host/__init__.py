"""A real ComfyUI to test and demonstrate the pack in: downloaded from PyPI on demand, never part of this project."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def host_folder() -> Path:
    """Where the host is: LIVETALK_COMFYUI, else .comfyui in the project."""
    return Path(os.environ.get("LIVETALK_COMFYUI", ROOT / ".comfyui"))
