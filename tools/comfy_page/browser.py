"""ComfyUI's page in a real browser, with nothing of the internet."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse

_OPTIONS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
_READY = "window.LiteGraph?.registered_node_types?.ParallelVAEDecode && window.app?.canvas?.graph"
_PATIENCE_SECONDS = 240.0


def chromium_path() -> str | None:
    """A browser that Playwright can drive: LIVETALK_CHROMIUM, else one of the system."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("LIVETALK_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; asyncio.run cannot be used on this thread while it is open."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, launched(playwright.chromium) as browser:
        yield browser


@contextmanager
def launched(kind: Any, *options: str) -> Iterator[Any]:
    """A browser of Playwright's `kind`, with more of its own options."""
    browser = kind.launch(executable_path=chromium_path(), args=[*_OPTIONS, *options])
    try:
        yield browser
    finally:
        browser.close()


def new_page(browser: Any, **options: Any) -> Any:
    """A page that reaches this machine only."""
    page = browser.new_context(viewport={"width": 1440, "height": 810}, **options).new_page()
    page.set_default_timeout(1000 * _PATIENCE_SECONDS)
    page.route("**/*", _stay_here)
    page.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
    return page


def open_comfy(page: Any, url: str, *, nodes_2: bool = False, language: str = "en") -> None:
    """Load ComfyUI's page and wait until the pack's nodes are there.

    Args:
        page: From `new_page`.
        url: Address of the host.
        nodes_2: Nodes as the page's elements ("Nodes 2.0"), not drawn on its canvas.
        language: Of the page.
    """
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_function(_READY)
    changed = page.evaluate(
        """async ([nodes2, language]) => {
          const settings = window.app.extensionManager.setting;
          const changed = settings.get("Comfy.Locale") !== language;
          await settings.set("Comfy.VueNodes.Enabled", nodes2);
          await settings.set("Comfy.Locale", language);
          return changed;
        }""",
        [nodes_2, language],
    )
    if changed:  # nodes have their names when they are defined
        page.reload(wait_until="domcontentloaded")
        page.wait_for_function(_READY)


def open_workflow(page: Any, graph: dict[str, Any], name: str) -> None:
    """Open a workflow in the page's own format, as a dropped file is."""
    page.evaluate("([graph, name]) => window.app.loadGraphData(graph, true, true, name)", [graph, name])


def _stay_here(route: Any) -> None:
    asked = urlparse(route.request.url)
    if asked.hostname == "127.0.0.1" or asked.scheme in ("data", "blob"):
        route.continue_()
    else:
        route.abort()
