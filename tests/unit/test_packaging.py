"""What is packed, what is imported, and what may not be written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from livetalk_core.diagnostics.checks import REQUIRED

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "livetalk_core"
if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def sources() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def all_sources() -> list[Path]:
    """Engine and pack."""
    return [*sources(), *sorted((ROOT / "nodes").glob("*.py")), ROOT / "__init__.py"]


def naming(paths: Iterable[Path], *words: str) -> Iterator[Path]:
    """Those with one of the words in them: parsing all of them takes seconds."""
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words):
            yield path


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_import_contracts() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout


def test_core_imports_itself_relatively() -> None:
    """So that the package works wherever its folder lies (ADR 005)."""
    for path in naming(sources(), "livetalk_core"):
        for node in ast.walk(tree(path)):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            assert not [name for name in names if name.split(".")[0] == "livetalk_core"], path


def test_what_only_posix_has_is_imported_where_it_is_needed() -> None:
    """So that a Windows without daemons still has everything else."""
    posix = {"fcntl", "resource", "pwd", "grp", "termios", "pty"}
    linux_only = {CORE / "daemon" / "runtime_dir.py"}
    for path in naming(set(all_sources()) - linux_only, *posix):
        for node in tree(path).body:  # guarded and late imports lie deeper
            if isinstance(node, ast.Import):
                assert not posix & {alias.name for alias in node.names}, path


def test_nothing_unfinished_and_no_path_of_one_machine() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|not implemented|for now|dummy)\b|NotImplementedError", re.IGNORECASE)
    machine = re.compile(r"(?<![\w.])/(?:work|farm|root|home)/[\w.-]+")
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    texts = [*all_sources(), *documents, ROOT / "Makefile", ROOT / ".ci" / "run"]
    for path in texts:
        text = path.read_text(encoding="utf-8")
        assert not machine.search(text), path
        if path.suffix == ".py":
            assert not unfinished.search(text), path


def test_only_the_command_line_prints() -> None:
    for path in naming(all_sources(), "print"):
        if "cli" in path.parts:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", path


def test_doctor_asks_for_what_the_package_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # torch and xfuser have lines of their own; ComfyUI's page is nothing that the engine imports.
    of_its_own = r"(torch|xfuser|comfyui-frontend-package)\b"
    others = [line for line in project["dependencies"] if not re.match(of_its_own, line)]
    assert sorted(others) == sorted(f"{name}{bounds}" for name, bounds in REQUIRED.items())


def test_every_data_file_is_packed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["livetalk_core"]
    data = [
        path.relative_to(CORE).as_posix()
        for path in CORE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert {"assets/portrait.png", "assets/demo.wav", "loading/known_hashes.json", "py.typed"} <= set(data)
    forgotten = [name for name in data if not any(fnmatch(name, pattern.replace("**/", "*")) for pattern in patterns)]
    assert forgotten == []


def test_every_package_says_what_it_is() -> None:
    for path in all_sources():
        assert re.match(r'(#.*\n)*"""[A-Z`]', path.read_text(encoding="utf-8")), path


def test_shown_files_exist() -> None:
    """Links and pictures of the documents, and the files that the architecture's index names."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} shows {target}"
    index = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z_]+/[a-z_/]*\.py)`", index):
        assert (CORE / name).exists() or (ROOT / name).exists(), name
