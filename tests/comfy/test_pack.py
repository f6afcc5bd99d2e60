"""The pack in its host: what it registers, in which languages, how it is installed and what it says when it is not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from comfy_graphs import ROOT, WORKFLOWS, avatar
from conftest import Runner

from tools.comfy_host.texts import NODE_IDS, node_shapes, node_texts

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")
PACK_PARTS = ("__init__.py", "nodes", "web", "locales", "workflows", "requirements.txt", "pyproject.toml")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def served(server: Any, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_saved_workflows_keep_working(server: Any) -> None:
    """Widgets are saved by position: inputs may be appended as optional ones, never moved, renamed or removed."""
    assert node_shapes(server.get("/object_info")) == read(ROOT / "tests" / "golden" / "object_info.json")


def test_every_input_and_output_says_what_it_is(server: Any) -> None:
    for name in NODE_IDS:
        node = server.get(f"/object_info/{name}")[name]
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        assert all(len(spec[1].get("tooltip", "")) > 8 for spec in inputs.values()), name
        assert all(node["output_tooltips"]) and len(node["description"]) > 40, name


def test_texts_in_english_and_chinese(server: Any) -> None:
    english = node_texts(server.get("/object_info"))
    assert read(ROOT / "locales" / "en" / "nodeDefs.json") == english
    translated = server.get("/i18n")
    chinese = translated["zh"]["nodeDefs"]
    for name, texts in english.items():
        assert chinese[name]["inputs"].keys() == texts["inputs"].keys(), name
        assert chinese[name]["outputs"].keys() == texts["outputs"].keys(), name
        assert chinese[name]["display_name"] != texts["display_name"]


def test_every_node_has_a_help_page(server: Any) -> None:
    for name in NODE_IDS:
        english = served(server, f"/extensions/livetalk/docs/{name}.md")
        chinese = served(server, f"/extensions/livetalk/docs/{name}/zh.md")
        title = server.get(f"/object_info/{name}")[name]["display_name"]
        assert english.startswith(f"# {title}\n") and chinese.startswith("# ")
        for shown in (english, chinese):
            assert len(shown) > 100 and "](" not in shown


def test_templates_are_offered_with_their_pictures(server: Any) -> None:
    names = set(server.get("/workflow_templates")["livetalk"])
    pages = {path.stem for path in WORKFLOWS.glob("*.json")}
    assert pages == names and "talking_avatar" in pages
    for name in pages:
        assert (WORKFLOWS / "api" / f"{name}.api.json").is_file()
        address = f"{server.url}/api/workflow_templates/livetalk/{name}.jpg"
        with urllib.request.urlopen(address, timeout=30) as picture:
            assert picture.read(2) == b"\xff\xd8"


def test_examples_lie_where_the_core_nodes_look(server: Any) -> None:
    from livetalk_core.production.request import BUNDLED_PORTRAIT

    assert (server.base / "input" / "livetalk_portrait.png").read_bytes() == BUNDLED_PORTRAIT.read_bytes()
    info = server.get("/object_info/LoadAudio")["LoadAudio"]
    assert "livetalk_speech.wav" in json.dumps(info)


def test_nothing_is_said_in_the_log_at_start(server: Any) -> None:
    log = server.log_text().split("Starting server")[0]
    assert "IMPORT FAILED" not in log and "Traceback" not in log and "livetalk cannot" not in log.lower()


@pytest.fixture
def pack_without_engine(tmp_path: Path) -> Path:
    """The pack's folder as it is without `livetalk_core`."""
    folder = tmp_path / "livetalk"
    folder.mkdir()
    for name in PACK_PARTS:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, folder / name)
    return folder


def test_without_the_engine_the_nodes_are_there_and_say_what_to_install(pack_without_engine: Path) -> None:
    import psutil

    from tools.comfy_host import host_folder
    from tools.comfy_host.client import run_prompt
    from tools.comfy_host.server import ComfyServer

    with ComfyServer((pack_without_engine,)) as bare:
        assert set(NODE_IDS) <= bare.get("/object_info").keys()
        assert not psutil.Process(bare.pid).children()
        graph = {
            "1": avatar()["1"],
            "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        }
        outcome = run_prompt(bare.url, graph)
        assert outcome.status == "error"
        python = host_folder() / "venv" / "bin" / "python"
        assert f"{python} -m pip install livetalk" in outcome.error["exception_message"]


def test_a_clone_runs_its_own_engine(server: Any, run: Runner) -> None:
    import psutil

    assert run(avatar()).status == "success"
    rank = psutil.Process(server.get("/livetalk/status")["stream_model"]["processes"][0])
    assert rank.environ()["PYTHONPATH"] == str(ROOT) and "livetalk_core.daemon.worker" in rank.cmdline()


def test_with_an_installed_wheel(pack_without_engine: Path, tmp_path: Path) -> None:
    from tools.comfy_host.client import run_prompt
    from tools.comfy_host.server import ComfyServer

    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], check=True, timeout=300)
    wheel = next(wheels.iterdir())
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=300)
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} <= {"livetalk_core", "bin"}
    with ComfyServer((pack_without_engine,), environment={"PYTHONPATH": str(site)}) as installed:
        outcome = run_prompt(installed.url, avatar())
        assert outcome.status == "success", outcome.error
        processes = installed.get("/livetalk/status")["stream_model"]["processes"]
        import psutil

        assert psutil.Process(processes[0]).environ()["PYTHONPATH"] == str(site)
