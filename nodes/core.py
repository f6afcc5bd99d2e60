"""Where the engine comes from: `livetalk_core` of this pack, or the installed one, under its own name."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

PACK = Path(__file__).resolve().parents[1]
CORE = "livetalk_core"
DISTRIBUTION = "livetalk"

NEEDED = (
    "torch", "diffusers", "transformers", "safetensors", "numpy", "scipy", "av", "PIL", "pyloudnorm", "msgspec",
    "typer", "rich", "accelerate", "ftfy", "sentencepiece", "psutil", "matplotlib",
)  # fmt: skip
"""Import names of everything that requirements.txt asks for."""


class InstallError(RuntimeError):
    """Something that the engine needs is not installed in ComfyUI's Python."""


def provide_core() -> None:
    """Make the engine importable by its name (docs/adr/005).

    A pack that was merely cloned brings the engine as a folder; loading it under its own name gives this process,
    the ranks of a daemon and the tests one and the same package.
    """
    home = PACK / CORE
    if CORE in sys.modules or not home.is_dir():
        return
    spec = importlib.util.spec_from_file_location(CORE, home / "__init__.py", submodule_search_locations=[str(home)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[CORE] = module
    spec.loader.exec_module(module)


def require_core() -> None:
    """Raise InstallError with the command to run, unless everything that the engine needs is installed."""
    missing = missing_packages()
    if missing:
        raise InstallError(
            f"LiveTalk needs Python packages that ComfyUI's Python does not have: {', '.join(missing)}. "
            f"Stop ComfyUI, run this, and start it again:  {install_command(missing)}"
        )


def missing_packages() -> list[str]:
    """Import names of what is not installed."""
    return [name for name in (CORE, *NEEDED) if name not in sys.modules and importlib.util.find_spec(name) is None]


def install_command(missing: list[str]) -> str:
    """The command that installs what is missing, for exactly this interpreter."""
    # A pack without the engine in its folder goes with the installed package, which brings all the rest.
    what = [DISTRIBUTION] if CORE in missing else ["-r", str(PACK / "requirements.txt")]
    return subprocess.list2cmdline([sys.executable, "-m", "pip", "install", *what])
