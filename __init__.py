"""LiveTalk as a ComfyUI node pack: what the host looks for, and nothing else."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """The extension with all nodes (called by ComfyUI)."""
    # Late: outside of ComfyUI this file can be imported, its nodes cannot.
    from .nodes.extension import load_extension

    return load_extension()
