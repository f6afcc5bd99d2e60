"""`python -m tools.comfy_host`: install a ComfyUI to try the pack in, start it, make the demonstration with it."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
from pathlib import Path

from . import ROOT, host_folder
from .install import install
from .server import ComfyServer


def main() -> int:
    """Entry of the program."""
    parser = argparse.ArgumentParser(prog="python -m tools.comfy_host", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    setup = commands.add_parser("install", help="download a ComfyUI and an environment for it")
    setup.add_argument("--torch", default="torch", help="what pip installs torch from, options included")
    start = commands.add_parser("start", help="start it with the pack, until Ctrl-C")
    start.add_argument("--port", type=int, default=8188)
    start.add_argument("--base", type=Path, default=None, help="folder for its files; .comfyui/base by default")
    options = parser.parse_args()
    if options.command == "install":
        install(host_folder(), shlex.split(options.torch))
        print(f"ComfyUI is in {host_folder()}")
        return 0
    return serve(options.port, options.base or host_folder() / "base")


def serve(port: int, base: Path) -> int:
    """Run the host with the pack until somebody stops it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ComfyServer((ROOT,), port=port, base=base) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"ComfyUI with LiveTalk: {server.url}")
        print("Workflow > Browse Templates > livetalk > talking_avatar, then Run. Ctrl-C ends it.", flush=True)
        server.wait()
        print(f"ComfyUI has ended by itself; its log is {base / 'comfy.log'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
