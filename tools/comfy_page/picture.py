"""The page while a workflow runs, for the README."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image

from .browser import open_workflow

_QUIET = """async () => {
  for (const name of ["Comfy.Minimap.Visible", "Comfy.Graph.CanvasInfo"])
    await app.extensionManager.setting.set(name, false);
}"""
_WATCH = """() => {
  window.made = 0;
  app.api.addEventListener("livetalk.chunk", () => (made += 1));
}"""
_SPEAKS = """() => {
  const video = document.querySelector(".livetalk-video");
  return made >= 4 && video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA && video.currentTime > 2.7;
}"""
_QUALITY = 88


def take_picture(page: Any, graph: dict[str, Any], target: Path) -> None:
    """Open a workflow, press Run and photograph the page when a few chunks have been made."""
    page.evaluate(_QUIET)
    open_workflow(page, graph, "talking_avatar")
    page.evaluate(_WATCH)
    page.get_by_role("button", name="Run").first.click(force=True)
    page.wait_for_function(_SPEAKS)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        shot.convert("RGB").save(target, quality=_QUALITY)
    print(target)
