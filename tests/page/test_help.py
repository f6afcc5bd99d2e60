"""What the page says about the nodes: help, names and the player's words, in the reader's language."""

from __future__ import annotations

import json
from typing import Any

import pytest
from comfy_graphs import ROOT, SINK
from comfy_page import Opener

from tools.comfy_host.texts import NODE_IDS

pytestmark = [pytest.mark.page, pytest.mark.timeout(300)]


def texts(language: str, name: str) -> Any:
    return json.loads((ROOT / "locales" / language / name).read_text(encoding="utf-8"))


@pytest.fixture
def language(request: pytest.FixtureRequest, host: Any) -> Any:
    """The language of a test; the host remembers it for the next page."""
    yield request.param
    host.post("/settings/Comfy.Locale", "en")


@pytest.mark.parametrize("language", ["en", "zh"], indirect=True)
def test_help_names_and_player_speak_the_language(comfy: Opener, language: str) -> None:
    one = comfy(language=language)
    one.open("talking_avatar")
    assert one.ask(f"player({SINK}).innerText.trim()") == texts(language, "main.json")["livetalk"]["player"]["idle"]
    expected = texts(language, "nodeDefs.json")
    release = tuple(map(int, one.ask("window.__COMFYUI_FRONTEND_VERSION__").split(".")))
    # Pages in between lose the names that packs bring in other languages (docs/comfyui.md).
    named = texts("en", "nodeDefs.json") if (1, 30, 2) <= release < (1, 33, 13) else expected
    for name in NODE_IDS:
        shown = one.page.evaluate(
            """(name) => {
              const node = LiteGraph.createNode(name);
              app.graph.add(node);
              app.canvas.selectNode(node);
              return [node.title, ...node.inputs.map((input) => input.label ?? input.localized_name ?? input.name)];
            }""",
            name,
        )
        ids = expected[name]["inputs"].keys()
        names = [named[name]["display_name"], *(part["name"] for part in named[name]["inputs"].values())]
        assert set(shown) <= {*names, *(ids if named is not expected else ()), "control_after_generate"}, name
        one.page.get_by_test_id("info-button").first.dispatch_event("click")
        one.page.locator(".node-help-content h1", has_text=expected[name]["display_name"]).wait_for()
        one.page.keyboard.press("Escape")
    assert not [text for text in one.said if "livetalk" in text.lower()]
