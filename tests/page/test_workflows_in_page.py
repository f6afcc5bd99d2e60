"""Every shipped workflow in the real page: opened without complaints, the same graph as its API format, and run."""

from __future__ import annotations

from typing import Any

import pytest
from comfy_graphs import WORKFLOWS, workflow
from comfy_page import Opener

pytestmark = [pytest.mark.page, pytest.mark.timeout(600)]
NAMES = sorted(path.stem for path in WORKFLOWS.glob("*.json"))
EMBEDDED = ("compare_correction", "long_speech", "talking_avatar")
SMALL = {"width": 64, "height": 64, "steps": 1, "max_seconds": 1.5}

_LOOK = """() => app.graph.nodes.map((node) => ({
  type: node.type,
  known: node.type in LiteGraph.registered_node_types && !node.has_errors,
  deprecated: Boolean(node.constructor.nodeData?.deprecated),
  undefined: (node.widgets ?? []).filter((widget) => widget.value === undefined).map((widget) => widget.name),
}))"""


def plain(graph: dict[str, Any]) -> dict[str, Any]:
    """What runs: no titles, no notes, and not the page's own player in Load Audio."""
    return {
        key: {
            "class_type": node["class_type"],
            "inputs": {name: value for name, value in node["inputs"].items() if name != "audioUI"},
        }
        for key, node in graph.items()
        if node["class_type"] != "MarkdownNote"
    }


@pytest.mark.parametrize("nodes_2", [False, True], ids=["drawn nodes", "Nodes 2.0"])
def test_all_open_without_complaints_and_say_the_same_as_their_api_format(comfy: Opener, nodes_2: bool) -> None:
    one = comfy(nodes_2=nodes_2)
    for name in NAMES:
        one.open(name)
        graph = one.page.evaluate("async () => (await app.graphToPrompt()).output")
        for node in one.page.evaluate(_LOOK):
            assert node["known"] and not node["deprecated"] and not node["undefined"], (name, node)
        assert plain(graph) == plain(workflow(name)), name
        assert one.said == [], name
        alerts = [text for text in one.page.get_by_role("alert").all_inner_texts() if "legacy design" not in text]
        assert alerts == [] and one.page.get_by_role("dialog").count() == 0, name


@pytest.mark.parametrize("name", EMBEDDED)
def test_what_needs_no_download_runs(comfy: Opener, name: str) -> None:
    one = comfy()
    one.open(name, seed=NAMES.index(name) + 30, **SMALL)
    one.run()
    one.until("ended()")
    assert one.ask("ended()") == "execution_success"
    sinks = one.ask("app.graph.nodes.filter((node) => node.type === 'ParallelVAEDecode').map((node) => node.id)")
    for sink in sinks:
        one.until(f"video({sink}).videoWidth === 64")
        assert "Done: 1.5 s of video" in one.ask(f"player({sink}).textContent")
    assert one.said == []
