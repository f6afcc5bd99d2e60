"""A real ComfyUI in a real browser, shared by the tests of this folder."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_page import Comfy, Opener

from tools.comfy_page.browser import chromium, chromium_path, new_page


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is missing."""
    from tools.comfy_host import host_folder

    lacks = ""
    if not (host_folder() / "host" / "main.py").is_file():
        lacks = f"no ComfyUI in {host_folder()}: make comfy-setup downloads one"
    elif importlib.util.find_spec("playwright") is None:
        lacks = "no Playwright: make page-setup installs it"
    elif chromium_path() is None:
        lacks = "no Chromium: apt install chromium, or name one by LIVETALK_CHROMIUM"
    if not lacks:
        return
    for item in items:
        if Path(item.path).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.skip(reason=lacks))


@pytest.fixture(scope="package")
def host() -> Iterator[Any]:
    """The host, with the pack linked into custom_nodes and the page in LIVETALK_FRONTEND, else its own."""
    from tools.comfy_host.server import ComfyServer

    page = os.environ.get("LIVETALK_FRONTEND")
    with ComfyServer(options=("--front-end-root", page) if page else ()) as running:
        yield running


# Of the package, not of the session: asyncio cannot be used while it is open.
@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    """The browser."""
    with chromium() as running:
        yield running


@pytest.fixture
def comfy(host: Any, browser: Any) -> Iterator[Opener]:
    """Opens the page; the run that a test leaves behind is stopped."""
    contexts = []

    def opener(**options: Any) -> Comfy:
        page = new_page(browser)
        contexts.append(page.context)
        return Comfy(page, host.url, **options)

    yield opener
    host.post("/interrupt")
    for context in contexts:
        context.close()
