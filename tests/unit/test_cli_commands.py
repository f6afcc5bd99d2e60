"""The other commands: each shows and returns what the function below it found."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from cli_tools import livetalk
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from livetalk_core import __version__
from livetalk_core.cli import app
from livetalk_core.cli.console import guarded
from livetalk_core.diagnostics.capability import chunk_seconds
from livetalk_core.media import probe_video

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "published"


def test_help_and_version_are_light_and_complete() -> None:
    """A subprocess: here the model libraries are imported already."""
    code = (
        "import sys, livetalk_core.cli as cli\n"
        "from typer.testing import CliRunner\n"
        "print(CliRunner().invoke(cli.app, ['--help']).output)\n"
        "print(CliRunner().invoke(cli.app, ['version']).output)\n"
        "heavy = {'torch', 'numpy', 'transformers', 'diffusers', 'av', 'PIL', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=90)
    assert done.returncode == 0, done.stderr
    assert f"livetalk {__version__}" in done.stdout
    for command in ("generate", "demo", "doctor", "bench", "convert", "conformance", "version", "daemon"):
        assert f" {command} " in done.stdout


@pytest.mark.parametrize("command", ["generate", "demo", "doctor", "bench", "convert", "conformance", "version"])
def test_every_option_explains_itself(command: str) -> None:
    registered = {info.callback.__name__: info.callback for info in app.registered_commands if info.callback}
    assert registered[command].__doc__
    click_command = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    for parameter in click_command.params:
        if parameter.param_type_name == "option":
            assert parameter.help, f"{command} {parameter.name}"
    assert livetalk(command, "--help").code == 0


@pytest.mark.parametrize("command", ["start", "status", "stop", "logs"])
def test_every_option_of_daemon_explains_itself(command: str) -> None:
    click_command = typer.main.get_command(app).commands["daemon"].commands[command]  # type: ignore[attr-defined]
    assert click_command.help
    for parameter in click_command.params:
        assert parameter.help, f"daemon {command} {parameter.name}"
    assert livetalk("daemon", command, "--help").code == 0


@pytest.mark.parametrize(
    ("devices", "world", "says"),
    [("0,x", 2, "numbers of GPUs"), ("0", 2, "one GPU for each rank"), ("1,1", 2, "each once"), ("0", None, "no --w")],
)
def test_devices_are_one_for_each_rank(tmp_path: Path, devices: str, world: int | None, says: str) -> None:
    ranks = () if world is None else ("--world-size", world)
    outcome = livetalk("generate", "--audio", "a.wav", "--out", tmp_path / "a.mp4", "--devices", devices, *ranks)
    assert outcome.code == 2 and says in outcome.stderr


def test_demo_leaves_its_five_files(tiny_model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "demo"
    outcome = livetalk("demo", "--out", folder, "--model", tiny_model_folder, "--max-seconds", 0.4)
    assert outcome.code == 0
    names = {"demo.mp4", "contact_sheet.png", "mouth.png", "report.json", "summary.txt"}
    assert {path.name for path in folder.iterdir()} == names
    assert probe_video(folder / "demo.mp4").frames == 10
    for name in ("contact_sheet.png", "mouth.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 300
    assert "mouth opening follows" in outcome.stdout and "demo.mp4" in outcome.stdout
    assert json.loads((folder / "report.json").read_text())["frames"] == 10


def test_conformance_passes_misses_and_dumps(tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    vectors.mkdir()
    for name in ("meta.json", "color_io.safetensors"):
        shutil.copy(GOLDEN / name, vectors)
    good = livetalk("conformance", vectors, "--json", tmp_path / "r.json", "--dump", tmp_path / "dump")
    assert good.code == 0 and "pass" in good.stdout and "absent" in good.stdout
    assert json.loads((tmp_path / "r.json").read_text())["ok"] is True
    recorded = load_file(vectors / "color_io.safetensors")
    dumped = load_file(tmp_path / "dump" / "color_io.safetensors")
    assert set(dumped) == {name for name in recorded if name.startswith(("out.", "mid."))}
    name = next(iter(dumped))
    save_file({**recorded, name: recorded[name] + 1}, vectors / "color_io.safetensors")
    bad = livetalk("conformance", vectors)
    assert bad.code == 1 and "MISS" in bad.stdout


def test_conformance_refuses_a_folder_without_vectors(tmp_path: Path) -> None:
    outcome = livetalk("conformance", tmp_path)
    assert outcome.code == 2 and "meta.json" in outcome.stderr


def test_convert_shows_the_hash_of_a_file_it_does_not_know(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "some.pth")
    outcome = livetalk("convert", tmp_path / "some.pth", "--json")
    error = outcome.json["error"]
    assert outcome.code == 2 and "--accept-unlisted" in error["fix"]
    assert error["details"]["sha256"] in error["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["some.pth"]


def test_hosts_are_read_from_a_file(tmp_path: Path) -> None:
    hosts, out = tmp_path / "hosts.json", tmp_path / "a.mp4"
    command = ("generate", "--audio", "a.wav", "--out", out, "--hosts", hosts)
    assert "cannot be read" in livetalk(*command).stderr
    hosts.write_text('{"nodes": 2, "ranks_per_node": 2, "master": "10.0.0.1", "interface": "eth0", "speed": 1}')
    assert "unknown field `speed`" in livetalk(*command).stderr
    hosts.write_text('{"nodes": 2, "ranks_per_node": 2, "master": "10.0.0.1", "interface": "eth0"}')
    outcome = livetalk(*command, "--world-size", 2)
    assert outcome.code == 2 and "2 hosts x 2 ranks" in outcome.stderr and "say 4" in outcome.stderr


def test_doctor_finds_good_and_broken_models(tiny_model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model_folder, tmp_path / "good")
    good = livetalk("doctor", "--no-timing", "--json", tmp_path)
    found = {finding["subject"]: finding for finding in good.json["findings"]}
    assert found[f"model {tmp_path / 'good'}"]["status"] == "ok"
    assert {"Python", "torch", "processor", "av", "codec libx264", "memory", "disk"} <= set(found)
    assert any(row["model"] == "14B" for row in good.json["capabilities"])
    assert all(finding["fix"] for finding in good.json["findings"] if finding["status"] == "problem")
    shutil.rmtree(tmp_path / "good" / "vae")
    bad = livetalk("doctor", "--no-timing", tmp_path)
    assert bad.code == 1 and "problem" in bad.stdout and "vae" in bad.stdout


def test_published_model_is_judged_by_the_card() -> None:
    fast, slow = chunk_seconds("NVIDIA H100 80GB HBM3"), chunk_seconds("NVIDIA GeForce RTX 4090")
    assert fast == pytest.approx(1978.3 / (989 * 0.65), rel=1e-3)
    assert slow is not None and slow > 5 * fast
    assert chunk_seconds("Some Other Card") is None


def test_bench_measures_every_stage(tiny_model_folder: Path, tmp_path: Path) -> None:
    arguments = ("--model", tiny_model_folder, "--size", "32x32", "--steps", 1, "--chunks", 3, "--warmup", 1)
    outcome = livetalk("bench", *arguments, "--dtype", "fp32", "--out", tmp_path / "b.json", "--json")
    result = outcome.json
    assert outcome.code == 0 and json.loads((tmp_path / "b.json").read_text()) == result
    assert (result["width"], result["height"], result["steps"], result["chunks"]) == (32, 32, 1, 3)
    chunk = result["stages"]["chunk"]
    assert chunk["count"] == 3 and chunk["max"] >= chunk["p95"] >= chunk["p50"] > 0
    # Four new frames per chunk of this model, 0.16 s of video.
    assert result["fps"] == pytest.approx(4 / chunk["p50"])
    assert result["real_time_factor"] == pytest.approx(chunk["p50"] / 0.16)
    assert result["first_frame_seconds"] > 0 and result["warm_first_frame_seconds"] > 0
    assert result["peak_rss_bytes"] > 10**8 and result["peak_gpu_bytes"] is None
    # The distribution does not say which build it is.
    assert torch.__version__.startswith(result["environment"]["libraries"]["torch"])
    table = livetalk("bench", *arguments)
    assert table.code == 0
    for word in ("denoise", "decode", "p95", "real-time factor", "peak memory", "first frame"):
        assert word in table.stdout


def test_bench_of_nothing_is_refused() -> None:
    outcome = livetalk("bench", "--model", "random:tiny", "--chunks", 0)
    assert outcome.code == 2 and "at least one chunk" in outcome.stderr


def invoke(failure: BaseException) -> tuple[int, str, str]:
    """A command that fails in a given way."""
    program = typer.Typer()

    @program.command()
    @guarded
    def fail() -> None:
        raise failure

    result = CliRunner().invoke(program, [])
    return result.exit_code, result.stdout, result.stderr


def test_the_unforeseen_becomes_a_log_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    code, _, text = invoke(ZeroDivisionError("oh"))
    assert code == 1 and "ZeroDivisionError: oh" in text and "Traceback" not in text
    log = next((tmp_path / "livetalk").iterdir())
    assert str(log) in text.replace("\n", "") and "Traceback" in log.read_text()


def test_debugging_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVETALK_DEBUG", "1")
    program = typer.Typer()

    @program.command()
    @guarded
    def fail() -> None:
        raise ZeroDivisionError

    assert isinstance(CliRunner().invoke(program, []).exception, ZeroDivisionError)


@pytest.mark.parametrize(("failure", "code"), [(KeyboardInterrupt(), 130), (KeyboardInterrupt(15), 143)])
def test_interruptions_have_their_codes(failure: BaseException, code: int) -> None:
    assert invoke(failure)[0] == code


def test_nobody_reads_the_output() -> None:
    """A closed pipe ends the command without a word about it."""
    command = [sys.executable, "-m", "livetalk_core.cli", "version"]
    reader, writer = os.pipe()
    os.close(reader)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment, timeout=90)
    os.close(writer)
    assert done.stderr == b"" and done.returncode in (1, 141)


def test_warnings_of_the_core_are_notes() -> None:
    program = typer.Typer()

    @program.command()
    @guarded
    def warn() -> None:
        logging.getLogger("livetalk").warning("mind the gap")

    result = CliRunner().invoke(program, [])
    assert result.exit_code == 0 and "note:  mind the gap" in result.stderr
    assert not logging.getLogger("livetalk").handlers


@pytest.mark.parametrize("command", ["start", "status", "stop", "logs"])
def test_daemons_say_that_they_need_linux(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    outcome = livetalk("daemon", command)
    assert outcome.code == 2 and "Daemons need Linux" in outcome.stderr
