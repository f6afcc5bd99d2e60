"""A workflow of the API's format in the page's own, made by the page itself."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from livetalk_core import __version__

_HERE = Path(__file__).parent
_ARRANGE = (_HERE / "arrange.js").read_text(encoding="utf-8")
_IDS = uuid.UUID("6d1f36ae-6c5e-4ec5-9a5d-6a1f8a3a1d5b")
# The page rounds numbers as it shows them.
_EXACTLY = """(graph) => {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? []) {
      const value = graph[node.id].inputs[widget.name];
      if (value !== undefined && !Array.isArray(value)) widget.value = value;
    }
}"""
_NOTES = json.loads((_HERE / "notes.json").read_text(encoding="utf-8"))


def in_page_format(page: Any, api: dict[str, Any], name: str) -> dict[str, Any]:
    """Load a graph and save it, tidily arranged, with the note that belongs to it.

    Args:
        page: ComfyUI's.
        api: Node id -> class_type and inputs.
        name: Of the workflow.
    """
    page.evaluate("([graph, name]) => window.app.loadApiJson(graph, name)", [api, name])
    page.wait_for_function("(count) => app.graph.nodes.length === count", arg=len(api))
    page.evaluate(_EXACTLY, api)
    saved: dict[str, Any] = json.loads(page.evaluate(_ARRANGE, [_NOTES[name], __version__]))
    # By it the player tells apart the workflows that are open; always the same for the same name.
    return {**saved, "id": str(uuid.uuid5(_IDS, name))}
