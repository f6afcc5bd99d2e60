"""`python -m tools.comfy_page`: make again what is committed of the page: workflows, thumbnails, the screenshot."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..comfy_host.client import run_prompt
from ..comfy_host.server import ComfyServer
from . import ROOT, thumbnails
from .browser import chromium, new_page, open_comfy
from .picture import take_picture
from .workflows import in_page_format

WORKFLOWS = ROOT / "workflows"
SCREENSHOT = ROOT / "docs" / "images" / "comfyui.jpg"
_GPUS = {"published_14b_1_gpu": 1, "published_14b_2_gpus": 2, "published_14b_4_gpus": 4, "published_14b_8_gpus": 8}
_PAIR = ("as published", "corrected")


def main() -> int:
    """Entry of the program."""
    parser = argparse.ArgumentParser(prog="python -m tools.comfy_page", description=__doc__)
    parts = ("workflows", "thumbnails", "screenshot")
    parser.add_argument("parts", nargs="*", help=f"some of: {', '.join(parts)}; all by default")
    wanted = parser.parse_args().parts or parts
    if unknown := set(wanted) - set(parts):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    with ComfyServer() as server:
        with chromium() as browser:
            if "workflows" in wanted:
                make_workflows(_opened(browser, server.url))
            if "screenshot" in wanted:
                graph = json.loads((WORKFLOWS / "talking_avatar.json").read_text(encoding="utf-8"))
                take_picture(_opened(browser, server.url), graph, SCREENSHOT)
        if "thumbnails" in wanted:  # last: what has been made before is not made again, and cannot be watched
            make_thumbnails(server)
    return 0


def _opened(browser: Any, url: str) -> Any:
    page = new_page(browser)
    open_comfy(page, url)
    return page


def make_workflows(page: Any) -> None:
    """Every workflow of workflows/api in the page's own format."""
    for file in sorted((WORKFLOWS / "api").glob("*.api.json")):
        name = file.name.removesuffix(".api.json")
        saved = in_page_format(page, json.loads(file.read_text(encoding="utf-8")), name)
        text = json.dumps(saved, indent=1, ensure_ascii=False) + "\n"
        (WORKFLOWS / f"{name}.json").write_text(text, encoding="utf-8")
        print(name, len(saved["nodes"]), "nodes")


def make_thumbnails(server: ComfyServer) -> None:
    """Of what the workflows with the embedded model make here, and of how the others share the work."""
    pictures = {name: thumbnails.of_gpus(gpus) for name, gpus in _GPUS.items()}
    pictures["parallel_vae_decode"] = thumbnails.of_decoding(4)
    for name in ("talking_avatar", "long_speech"):
        pictures[name] = thumbnails.of_video(_videos(server, name)[0])
    pictures["compare_correction"] = thumbnails.of_pair(_videos(server, "compare_correction"), _PAIR)
    for name, picture in pictures.items():
        picture.save(WORKFLOWS / f"{name}.jpg", quality=88)
        print(WORKFLOWS / f"{name}.jpg")


def _videos(server: ComfyServer, name: str) -> list[Path]:
    """What a workflow saves, in the order of its nodes."""
    graph = json.loads((WORKFLOWS / "api" / f"{name}.api.json").read_text(encoding="utf-8"))
    outcome = run_prompt(server.url, graph, timeout=1800.0)
    if outcome.status != "success":
        raise RuntimeError(f"{name}: {outcome.error}")
    savers = [node for node in sorted(graph, key=int) if graph[node]["class_type"] == "SaveVideo"]
    shown = [outcome.outputs[node]["images"][0] for node in savers]
    return [server.base / file["type"] / file["subfolder"] / file["filename"] for file in shown]


if __name__ == "__main__":
    sys.exit(main())
