"""A real ComfyUI with the pack, shared by the tests of a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / "workflows"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a host nothing here can run."""
    from tools.comfy_host import host_folder

    if not (host_folder() / "host" / "main.py").is_file():
        skip = pytest.mark.skip(reason=f"no ComfyUI in {host_folder()}: make comfy-setup downloads one")
        for item in items:
            if Path(item.path).is_relative_to(Path(__file__).parent):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def server() -> Iterator[Any]:
    """The host, with the pack merely linked into custom_nodes."""
    from tools.comfy_host.server import ComfyServer

    with ComfyServer() as running:
        yield running


@pytest.fixture
def avatar() -> dict[str, Any]:
    """The shipped workflow, two chunks long."""
    prompt = workflow("talking_avatar")
    prompt["5"]["inputs"]["max_seconds"] = 2.0
    return prompt


def workflow(name: str) -> dict[str, Any]:
    """A shipped workflow in the API's format."""
    graph: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.api.json").read_text(encoding="utf-8"))
    return graph


def report_of(outcome: Any, node: str = "report") -> dict[str, Any]:
    """The report that a PreviewAny showed."""
    facts: dict[str, Any] = json.loads(outcome.outputs[node]["text"][0])
    return facts


def with_report(prompt: dict[str, Any], sink: str = "6") -> dict[str, Any]:
    """The prompt with its report shown."""
    return {**prompt, "report": {"class_type": "PreviewAny", "inputs": {"source": [sink, 2]}}}


