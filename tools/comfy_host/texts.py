"""What a host serves about the nodes: their texts, as translators see them, and the shape that workflows rely on."""

from __future__ import annotations

from typing import Any

NODE_IDS = (
    "LoadLiveTalkModel", "AudioEncode", "StreamChunkSampler", "RetrospectiveCorrect", "ParallelVAEDecode",
    "LiveTalkReleaseModel",
)  # fmt: skip


def node_texts(object_info: dict[str, Any]) -> dict[str, Any]:
    """What locales/en/nodeDefs.json has to hold.

    Args:
        object_info: Answer of GET /object_info.
    """
    return {name: _texts(object_info[name]) for name in NODE_IDS}


def node_shapes(object_info: dict[str, Any]) -> dict[str, Any]:
    """What saved workflows depend on: ids, order, types, ranges and defaults of inputs and outputs."""
    return {name: _shape(object_info[name]) for name in NODE_IDS}


def _shape(node: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        kind: [[name, *_kind(spec)] for name, spec in node["input"].get(kind, {}).items()]
        for kind in ("required", "optional")
    }
    outputs = [list(pair) for pair in zip(node["output"], node["output_name"], strict=True)]
    return {**inputs, "outputs": outputs, "category": node["category"], "output_node": node["output_node"]}


def _kind(spec: list[Any]) -> list[Any]:
    """Type and limits of an input; lists of files differ from one machine to the next."""
    limits = {key: value for key, value in spec[1].items() if key in ("default", "min", "max", "step", "round")}
    return [spec[0], limits]


def _texts(node: dict[str, Any]) -> dict[str, Any]:
    inputs = {
        name: {"name": spec[1].get("display_name", name.replace("_", " ")), "tooltip": spec[1]["tooltip"]}
        for kind in ("required", "optional")
        for name, spec in node["input"].get(kind, {}).items()
    }
    outputs = {
        str(index): {"name": name, "tooltip": tip}
        for index, (name, tip) in enumerate(zip(node["output_name"], node["output_tooltips"], strict=True))
    }
    return {
        "display_name": node["display_name"], "description": node["description"], "inputs": inputs, "outputs": outputs,
    }  # fmt: skip
