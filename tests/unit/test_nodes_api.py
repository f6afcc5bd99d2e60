"""What of ComfyUI's API the nodes use: only what its oldest supported version has."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit
NODES = Path(__file__).resolve().parents[2] / "nodes"

IO = {
    "AnyType", "Audio", "Boolean", "ClipVisionOutput", "Combo", "ComfyNode", "Conditioning", "Custom", "Float",
    "Hidden", "Image", "Int", "Latent", "NodeOutput", "Schema", "String", "Video",
}  # fmt: skip
"""Names of `comfy_api.latest.io`. ComfyUI 0.3.52 has all of them (`make comfy-setup COMFYUI=0.3.52` starts one); try
what is added here there, too."""

KEYWORDS = {
    "Schema": {
        "node_id", "display_name", "category", "description", "inputs", "outputs", "hidden", "is_output_node",
        "not_idempotent",
    },
    "Input": {
        "default", "min", "max", "step", "round", "options", "multiline", "control_after_generate", "display_name",
        "optional", "tooltip",
    },
    "Output": {"display_name", "tooltip"},
    "NodeOutput": {"ui"},
}  # fmt: skip

IMPORTS = {
    "comfy.model_management", "comfy.utils", "folder_paths", "server.PromptServer", "comfy_api.latest.ComfyExtension",
    "comfy_api.latest.InputImpl", "comfy_api.latest.io", "comfy_execution.utils.get_executing_context",
}  # fmt: skip
_HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "server"}


def parsed() -> Iterator[ast.AST]:
    for path in sorted(NODES.glob("*.py")):
        yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_names() -> None:
    used = {
        part.attr for part in parsed()
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "io"
    }  # fmt: skip
    assert used == IO


def test_keywords() -> None:
    used: dict[str, set[str]] = {name: set() for name in KEYWORDS}
    for part in parsed():
        if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in KEYWORDS:
            used[part.func.attr] |= {str(keyword.arg) for keyword in part.keywords}
    assert used == KEYWORDS


def test_imports() -> None:
    used = set()
    for part in parsed():
        if isinstance(part, ast.Import):
            used |= {name.name for name in part.names}
        elif isinstance(part, ast.ImportFrom) and part.level == 0:
            used |= {f"{part.module}.{name.name}" for name in part.names}
    assert {name for name in used if name.split(".")[0] in _HOST} == IMPORTS
