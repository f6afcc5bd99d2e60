"""A real browser: a template from the page's own list, Run, and a moving picture before the video is done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [pytest.mark.page, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


def chromium() -> str | None:
    """A browser that Playwright can drive."""
    return os.environ.get("LIVETALK_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def test_a_template_is_opened_run_and_watched(tmp_path: Path) -> None:
    from tools.comfy_host import host_folder
    from tools.comfy_host.server import ComfyServer

    modules = Path(os.environ.get("LIVETALK_PAGE", host_folder() / "page"))
    if not (host_folder() / "host" / "main.py").is_file():
        pytest.skip(f"no ComfyUI in {host_folder()}: make comfy-setup downloads one")
    browser = chromium()
    if browser is None or not (modules / "node_modules" / "playwright-core").is_dir():
        pytest.skip(f"needs chromium and playwright-core in {modules}: apt install chromium, make page-setup")
    out = Path(os.environ.get("LIVETALK_PICTURES", tmp_path))
    out.mkdir(parents=True, exist_ok=True)
    settings = {**os.environ, "LIVETALK_PAGE": str(modules), "LIVETALK_CHROMIUM": browser}
    with ComfyServer() as server:
        done = subprocess.run(
            ["node", str(ROOT / "tests" / "page" / "open_template.mjs"), server.url, str(out), "talking_avatar"],
            env=settings, capture_output=True, text=True, timeout=800,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(facts, indent=1))
    assert not [error for error in facts["errors"] if "livetalk" in error.lower()], facts["errors"]
    assert 0 < facts["shownAfter"] < facts["playingAfter"] < facts["doneAfter"]
    assert facts["chunks"] == 9
