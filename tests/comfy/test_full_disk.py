"""Disks that are full or may not be written: a sentence on the node, nothing half-written, and the queue goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import ENCODE, ROOT, SAMPLER, SAVE, SINK, avatar, changed
from conftest import PROBES

from livetalk_core.media import probe_video

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(300)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")

LARGE = changed(avatar(0.0), SAMPLER, width=128, height=128, steps=1)
"""More than the small disk holds."""

SmallDisk = Callable[[Path, int], None]


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """Puts a file system of so many kilobytes at a folder."""
    mounted: list[Path] = []

    def mount(folder: Path, kilobytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = f"size={kilobytes}k,mode=700,uid={os.getuid()}"
        command = ["mount", "-t", "tmpfs", "-o", options, "livetalk-test", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"small file systems can be mounted by an administrator only ({error})")
        mounted.append(folder)

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Use up all room; returns the file that does."""
    path = folder / "everything else"
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1024))
    return path


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_videos_and_sound_need_room_in_the_temporary_folder(tmp_path: Path, small_disk: SmallDisk) -> None:
    from tools.comfy_host.client import run_prompt
    from tools.comfy_host.server import ComfyServer

    disk = tmp_path / "disk"
    small_disk(disk, 84)
    with ComfyServer((ROOT, PROBES), base=tmp_path / "base", options=("--temp-directory", str(disk))) as server:
        assert run_prompt(server.url, avatar()).status == "success"
        made = files(disk)
        too_large = run_prompt(server.url, LARGE)
        assert said(too_large, SINK) and too_large.told("livetalk.chunk"), "it broke off while the video was written"
        assert files(disk) == made
        assert run_prompt(server.url, changed(avatar(), SAMPLER, seed=1)).status == "success"

        long_sound = {"clips": 1, "channels": 1, "samples": 100 * 16_000, "rate": 16_000, "nan": False}
        graph = {**changed(avatar(), ENCODE, audio=["long", 0]),
                 "long": {"class_type": "ProbeAudio", "inputs": long_sound}}  # fmt: skip
        made = files(disk)
        assert said(run_prompt(server.url, graph), ENCODE)
        assert files(disk) == made

        filler = fill(disk)
        assert said(run_prompt(server.url, changed(avatar(), SAMPLER, seed=2)), SINK)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        assert said(run_prompt(server.url, changed(avatar(), SAMPLER, seed=3)), SINK, "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        assert files(disk) == made
        assert run_prompt(server.url, changed(avatar(), SAMPLER, seed=4)).status == "success"


def test_a_video_that_cannot_be_saved_is_still_there(tmp_path: Path, small_disk: SmallDisk) -> None:
    """SaveVideo is ComfyUI's own node and says it in its own words; what the sink made is not lost."""
    from tools.comfy_host.client import run_prompt
    from tools.comfy_host.server import ComfyServer

    with ComfyServer((ROOT,), base=tmp_path) as server:
        small_disk(tmp_path / "output", 16)
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "output"], check=True)
        outcome = run_prompt(server.url, avatar())
        assert outcome.status == "error" and outcome.error["node_id"] == SAVE
        shown = outcome.outputs[SINK]["livetalk_video"][0]
        assert probe_video(tmp_path / "temp" / shown["subfolder"] / shown["filename"]).frames == 25
        subprocess.run(["mount", "-o", "remount,rw,size=1m", tmp_path / "output"], check=True)
        again = run_prompt(server.url, avatar())
        assert again.status == "success" and SINK not in again.ran()


def test_the_processes_need_room_for_their_sockets(tmp_path: Path, small_disk: SmallDisk) -> None:
    from tools.comfy_host.client import run_prompt
    from tools.comfy_host.server import ComfyServer

    disk = tmp_path / "disk"
    small_disk(disk, 100)
    with ComfyServer((ROOT,), base=tmp_path / "base", environment={"XDG_RUNTIME_DIR": str(disk)}) as server:
        filler = fill(disk)
        assert said(run_prompt(server.url, avatar()), SINK)
        assert not [path for path in files(disk) if path.stat().st_size and path != filler]
        filler.unlink()
        assert run_prompt(server.url, avatar()).status == "success"


def said(outcome: Any, node: str, why: str = "No space left on device") -> bool:
    """Whether the prompt ended with a sentence about the disk, with the remedy, on this node."""
    message: str = outcome.error["exception_message"]
    return outcome.error["node_id"] == node and why in message and "Make room there" in message
