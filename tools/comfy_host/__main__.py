"""`python -m tools.comfy_host`: install a ComfyUI to try the pack in, start it, make the demonstration with it."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from . import ROOT, host_folder
from .install import NEWEST, WHEELS, install
from .server import ComfyServer


def main() -> int:
    """Entry of the program."""
    parser = argparse.ArgumentParser(prog="python -m tools.comfy_host", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("install", help="download a ComfyUI and an environment for it")
    setup.add_argument("--torch", default="torch", help="what pip installs torch from, options included")
    setup.add_argument("--comfyui", choices=WHEELS, default=NEWEST, help="its version")
    start = commands.add_parser("start", help="start it with the pack, until Ctrl-C")
    start.add_argument("--port", type=int, default=8188)
    start.add_argument("--base", type=Path, default=None, help="folder for its files; .comfyui/base by default")
    demo = commands.add_parser("demo", help="make the demonstration in it, or by the engine where it cannot be had")
    demo.add_argument("--out", type=Path, default=Path("demo"))
    demo.add_argument("--torch", default="torch", help="as for install")
    options = parser.parse_args()
    if options.command == "install":
        install(host_folder(), shlex.split(options.torch), options.comfyui)
        print(f"ComfyUI {options.comfyui} is in {host_folder()}")
        return 0
    if options.command == "demo":
        return demonstrate(options.out, shlex.split(options.torch))
    return serve(options.port, options.base or host_folder() / "base")


def demonstrate(folder: Path, torch: Sequence[str]) -> int:
    """Make the demonstration in ComfyUI; where that cannot be had, say so and let the engine make the same video."""
    try:
        print("The demonstration runs in a real ComfyUI; the first time it is downloaded, which takes minutes.")
        install(host_folder(), torch)
        from .demo import make_demo

        made = make_demo(folder)
    except (OSError, RuntimeError, ImportError, subprocess.CalledProcessError) as error:
        print(f"ComfyUI cannot be had here ({error}).\nThe engine makes the same video without it.")
        return subprocess.run([sys.executable, "-m", "livetalk_core.cli", "demo", "--out", str(folder)]).returncode
    print(made.summary.read_text(encoding="utf-8").rstrip())
    files = {"watch": made.video, "look": made.sheet, "compare": made.plot, "facts": made.report_file}
    for label, path in files.items():
        print(f"  {label:8} {folder / path.name}")
    return 0


def serve(port: int, base: Path) -> int:
    """Run the host with the pack until somebody stops it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Starting ComfyUI; it answers after about ten seconds.", flush=True)
    with ComfyServer((ROOT,), port=port, base=base) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"ComfyUI with LiveTalk: {server.url}")
        print("Workflow > Browse Templates > livetalk > talking_avatar, then Run. Ctrl-C ends it.", flush=True)
        server.wait()
        print(f"ComfyUI has ended by itself; its log is {base / 'comfy.log'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
