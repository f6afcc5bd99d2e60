"""The shipped workflows: page and API format say the same, every one is accepted, and all run on small models."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comfy_graphs import LOAD, SAMPLER, WORKFLOWS, changed, workflow
from conftest import Runner

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(900)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")

NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
SMALL = {"width": 64, "height": 64, "steps": 1, "max_seconds": 1.0}
_NOTES = {"MarkdownNote", "Note"}


def page(name: str) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
    return graph


@pytest.mark.parametrize("name", NAMES)
def test_both_formats_hold_the_same_graph(server: Any, name: str) -> None:
    saved, api = page(name), workflow(name)
    nodes = {str(node["id"]): node for node in saved["nodes"] if node["type"] not in _NOTES}
    assert {key: node["type"] for key, node in nodes.items()} == {key: node["class_type"] for key, node in api.items()}
    links = {link[0]: link for link in saved["links"]}
    info = server.get("/object_info")
    for key, node in nodes.items():
        shown = {}
        for slot in node["inputs"]:
            if slot.get("link") is not None:
                _, source, output, *_ = links[slot["link"]]
                shown[slot["name"]] = [str(source), output]
        assert shown == {name: value for name, value in api[key]["inputs"].items() if isinstance(value, list)}
        plain = [value for value in api[key]["inputs"].values() if not isinstance(value, list)]
        widgets = [value for value in node.get("widgets_values", []) if value not in ("fixed", "image", "", None)]
        assert widgets == [value for value in plain if value != ""], node["type"]
        ours = info[node["type"]]["python_module"].startswith("custom_nodes")
        assert node["properties"]["cnr_id"] == ("livetalk" if ours else "comfy-core")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("parallel_vae_decode",)])
def test_a_workflow_runs_with_a_small_model(run: Runner, name: str) -> None:
    """The published layout with a few random megabytes stands for the 14B model."""
    graph = changed(workflow(name), SAMPLER, **SMALL)
    gpus = graph[LOAD]["inputs"]["gpus"]
    graph = changed(graph, LOAD, gpus=min(gpus, 2), precision="fp32" if gpus > 1 else "auto")
    outcome = run(graph, timeout=800.0)
    assert outcome.status == "success", outcome.error
    assert any(shown.get("animated") == [True] for shown in outcome.outputs.values())


def test_the_wan_workflow_is_accepted_up_to_its_missing_models(run: Runner) -> None:
    from tools.comfy_host.client import RefusedError

    with pytest.raises(RefusedError) as caught:
        run(workflow("parallel_vae_decode"))
    missing = {error["extra_info"]["input_name"] for node in caught.value.report["node_errors"].values()
               for error in node["errors"]}  # fmt: skip
    assert missing == {"unet_name", "clip_name"}
