"""ComfyUI's page, as a user works with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from comfy_graphs import WORKFLOWS

from tools.comfy_page.browser import open_comfy, open_workflow


class Comfy:
    """The page after it has been loaded.

    Attributes:
        page: Playwright's page.
        said: Warnings and errors of the console, but not that the internet is missing.
    """

    def __init__(self, page: Any, url: str, **options: Any) -> None:
        self.page, self.url, self._options = page, url, options
        self.said: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        self.load()

    def load(self) -> None:
        """Load the page, or load it again."""
        open_comfy(self.page, self.url, **self._options)
        self.page.evaluate(_WATCH)
        self.said.clear()

    def open(self, name: str, **sampler: Any) -> None:
        """Open a shipped workflow and change settings of its sampler."""
        graph = json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8"))
        open_workflow(self.page, graph, name)
        self.set("StreamChunkSampler", **sampler)

    def switch(self, name: str) -> None:
        """Go to the tab of a workflow that is open."""
        tab = ".p-togglebutton, [role=radio], button"
        self.page.locator(".workflow-tabs").locator(tab, has_text=name).first.dispatch_event("click")

    def set(self, kind: str, **values: Any) -> None:
        """Change settings of all nodes of a kind."""
        self.page.evaluate(
            """([kind, values]) => {
              for (const node of app.graph.nodes.filter((one) => one.type === kind))
                for (const widget of node.widgets) if (widget.name in values) widget.value = values[widget.name];
            }""",
            [kind, values],
        )

    def run(self) -> None:
        """Press Run."""
        self.page.evaluate("() => { seen.events.length = 0; seen.pressed = performance.now(); }")
        self.page.get_by_role("button", name="Run").first.click(force=True)

    def until(self, condition: str) -> None:
        """Wait for a condition in JavaScript, with the helpers below."""
        self.page.wait_for_function(condition)

    def ask(self, expression: str) -> Any:
        """Value of an expression in JavaScript."""
        return self.page.evaluate(f"() => {expression}")

    def _note(self, message: Any) -> None:
        url = message.location.get("url", "")
        if message.type not in ("warning", "error"):
            return
        if "Failed to load" in message.text and (not url.startswith((self.url, "webpack")) or _ASKED.search(url)):
            return
        self.said.append(f"{message.text} {url}".strip())


# The page looks for help in its language first; a short stream can be over before the player asks for it.
_ASKED = re.compile(r"/livetalk/(docs/|live/)")
_WATCH = """() => {
  window.seen = { events: [] };
  const names = ["livetalk.phase", "livetalk.stream", "livetalk.chunk", "executed", "execution_success",
    "execution_error", "execution_interrupted"];
  for (const name of names)
    app.api.addEventListener(name, ({ detail }) => seen.events.push({ name, detail, at: performance.now() }));
  window.count = (name) => seen.events.filter((event) => event.name === name).length;
  window.ended = () => seen.events.find((event) => event.name.match(/execution_(success|error|interrupted)/))?.name;
  window.player = (id) => app.graph.getNodeById(id)?.widgets.find((widget) => widget.name === "live").element;
  window.video = (id) => player(id)?.querySelector("video");
  window.moves = (id) => video(id)?.currentTime > 0.3 && video(id).videoWidth > 0;
}"""


Opener = Callable[..., Comfy]
