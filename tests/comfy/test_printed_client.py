"""The client that docs/comfyui.md prints, exactly as it is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import LOAD, ROOT, SAMPLER, changed, workflow

from livetalk_core.media import probe_video

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")

FRAMES = 70
SMALL = {"max_seconds": FRAMES / 25, "width": 64, "height": 64, "steps": 2}
PLAYER = f"""#!{sys.executable}
import sys
assert sys.argv[-1] == "-"
with open("played.mp4", "wb") as film:
    while piece := sys.stdin.buffer.read1():
        film.write(piece)
"""


def printed() -> str:
    """The document's only Python."""
    _, after = (ROOT / "docs" / "comfyui.md").read_text(encoding="utf-8").split("```python\n")
    return after.split("```")[0]


def run_client(server: Any, folder: Path, graph: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run it in a folder whose `bin` is all that it finds on its path."""
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "client.py").write_text(printed(), encoding="utf-8")
    (folder / "graph.json").write_text(json.dumps(graph), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "client.py", server.url, "graph.json"], cwd=folder, capture_output=True, text=True,
        timeout=300, env={**os.environ, "PATH": str(folder / "bin")},
    )  # fmt: skip


def test_it_is_short() -> None:
    assert len([line for line in printed().splitlines() if line.strip()]) <= 30


@pytest.mark.parametrize("with_player", [True, False], ids=["ffplay", "no player"])
def test_it_watches_the_live_film_and_fetches_the_file(server: Any, tmp_path: Path, with_player: bool) -> None:
    if with_player:
        player = tmp_path / "bin" / "ffplay"
        player.parent.mkdir()
        player.write_text(PLAYER)
        player.chmod(0o755)
    seed = 50 + with_player  # what is cached is not made
    done = run_client(server, tmp_path, changed(workflow("talking_avatar"), SAMPLER, seed=seed, **SMALL))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1.12 s made", "2.24 s made", "2.80 s made", "execution_success "]
    live = probe_video(tmp_path / ("played.mp4" if with_player else "live.mp4"))
    (saved,) = tmp_path.glob("avatar_*.mp4")
    final = probe_video(saved)
    assert final.frames == FRAMES and 0 < live.frames <= FRAMES
    assert (live.width, live.height) == (final.width, final.height) == (64, 64)
    assert live.audio_seconds > 0 and final.audio_seconds == pytest.approx(FRAMES / 25, abs=0.04)


def test_it_says_what_a_host_says(server: Any, tmp_path: Path) -> None:
    refused = run_client(server, tmp_path, changed(workflow("talking_avatar"), LOAD, gpus=0))
    assert refused.returncode == 1 and "gpus" in refused.stderr
