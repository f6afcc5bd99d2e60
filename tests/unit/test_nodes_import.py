"""The pack as a host loads it: from its folder, under a strange name, perhaps without anything installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nodes import core

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

pytestmark = pytest.mark.unit
OPTIONAL = {"xfuser", "comfyui-frontend-package"}
"""Used where it is there, and brings much that a ComfyUI may not want; the page that ComfyUI itself brings."""

ROOT = Path(__file__).resolve().parents[2]

LOAD = """
import importlib.util, sys
root = sys.argv[1]
name = root.replace(".", "_x_")
spec = importlib.util.spec_from_file_location(name, root + "/__init__.py")
pack = importlib.util.module_from_spec(spec)
sys.modules[name] = pack
spec.loader.exec_module(pack)
core = importlib.import_module(name + ".nodes.core")
core.provide_core()
import livetalk_core
from livetalk_core.errors import ConfigError
for module in ("planning", "stream_run", "latent_run"):
    importlib.import_module(f"{name}.nodes.{module}")
from livetalk_core.production import prepare, daemon_backend, shoot
heavy = [n for n in ("diffusers", "transformers", "livetalk_core.engine.step") if n in sys.modules]
print(livetalk_core.__file__, pack.WEB_DIRECTORY, heavy)
"""


def names(requirements: list[str]) -> dict[str, str]:
    """Package -> what may follow its name."""
    return {re.split(r"[<>=!~ ;\[]", line)[0].lower(): line for line in requirements}


def test_a_clone_brings_its_engine_and_no_model_library(tmp_path: Path) -> None:
    """The model lives in other processes; ComfyUI's own imports nothing for it that takes seconds and memory."""
    home = tmp_path / "custom.nodes" / "live-talk"
    home.parent.mkdir()
    home.symlink_to(ROOT, target_is_directory=True)
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", "-c", LOAD, str(home)],
        cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(core.PACK / "livetalk_core" / "__init__.py"), "./web", "[]"]


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert core.missing_packages() == []
    core.require_core()
    monkeypatch.setattr(core, "NEEDED", ("torch", "surely_not_installed"))
    with pytest.raises(core.InstallError) as caught:
        core.require_core()
    text = str(caught.value)
    assert "surely_not_installed" in text and "torch," not in text
    assert sys.executable in text and str(core.PACK / "requirements.txt") in text


def test_requirements_are_the_dependencies_that_comfyui_does_not_bring() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = names(project["dependencies"])
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    listed = names([line for line in lines if line and not line.startswith("#")])
    of_host = {"torch", "transformers", "safetensors", "numpy", "scipy", "av", "pillow", "sentencepiece", "psutil"}
    assert listed.keys() == needed.keys() - of_host - OPTIONAL
    for name, line in listed.items():
        assert line == needed[name] and not re.search(r"<|==|~=", line), line


def test_every_dependency_is_looked_for_before_a_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = names(project["dependencies"]).keys() - OPTIONAL
    imports = {"pillow": "PIL"}
    assert set(core.NEEDED) == {imports.get(name, name) for name in needed}
