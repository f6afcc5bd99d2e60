"""Graphs for a real ComfyUI: the shipped workflows, small changes of them, and what came out."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
LOAD, IMAGE, SOUND, ENCODE, SAMPLER, SINK, SAVE = "1", "2", "3", "4", "5", "6", "7"
"""Nodes of the talking avatar."""

Prompt = dict[str, Any]


def workflow(name: str) -> Prompt:
    """A shipped workflow in the API's format."""
    graph: Prompt = json.loads((WORKFLOWS / "api" / f"{name}.api.json").read_text(encoding="utf-8"))
    return graph


def avatar(seconds: float = 1.0) -> Prompt:
    """The shipped talking avatar, short, small and quick, with its report shown as node "report"."""
    small = {"max_seconds": seconds, "width": 64, "height": 64, "steps": 2}
    return with_report(changed(workflow("talking_avatar"), SAMPLER, **small))


def changed(graph: Prompt, node: str, **inputs: Any) -> Prompt:
    """A copy with other inputs at one node; None removes one."""
    result = copy.deepcopy(graph)
    for name, value in inputs.items():
        if value is None:
            result[node]["inputs"].pop(name, None)
        else:
            result[node]["inputs"][name] = value
    return result


def with_report(prompt: Prompt, sink: str = SINK) -> Prompt:
    """The prompt with the report of a sink shown."""
    return {**prompt, "report": {"class_type": "PreviewAny", "inputs": {"source": [sink, 2]}}}


def report_of(outcome: Any) -> dict[str, Any]:
    """The report that was shown."""
    facts: dict[str, Any] = json.loads(outcome.outputs["report"]["text"][0])
    return facts


def digests(report: dict[str, Any]) -> list[str]:
    """Of all chunks."""
    return [chunk["sha256"] for chunk in report["chunks"]]
