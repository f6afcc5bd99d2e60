"""`livetalk convert`: what is listed or accepted becomes safetensors, what could run code never does."""

from __future__ import annotations

import errno
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from livetalk_core.errors import CheckpointError, OutputError
from livetalk_core.loading import atomic_files, convert_worker
from livetalk_core.loading import convert as module
from livetalk_core.loading.convert import ConversionRefused, convert, known_hashes, sha256_of

pytestmark = pytest.mark.unit

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.save(STATE, tmp_path / "vae.pth")
    return tmp_path / "vae.pth"


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the worker's function here: starting an interpreter takes seconds and has its own test."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        answer = convert_worker.run(Path(command[-2]), Path(command[-1]))
        return subprocess.CompletedProcess(command, 0, json.dumps(answer).encode(), b"")

    monkeypatch.setattr(module.subprocess, "run", run)


def assert_converted(target: Path) -> None:
    loaded = load_file(target)
    assert loaded.keys() == STATE.keys()
    assert all(torch.equal(loaded[k], v) and loaded[k].dtype == v.dtype for k, v in STATE.items())


@pytest.mark.timeout(300)  # starts an interpreter with torch
def test_child_process_converts(source: Path, tmp_path: Path) -> None:
    (result,) = convert(source, accept_unlisted=True)
    assert_converted(tmp_path / "vae.safetensors")
    assert (result.tensors, result.listed) == (2, False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["convert.json", "vae.pth", "vae.safetensors"]


def test_unlisted_file_is_refused_before_it_is_opened(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_run_worker", lambda *_: pytest.fail("opened"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(ConversionRefused, match=digest) as caught:
        convert(source)
    assert "--accept-unlisted" in caught.value.hint
    assert [p.name for p in tmp_path.iterdir()] == ["vae.pth"]


@pytest.mark.usefixtures("in_process")
def test_listed_hash_needs_no_permission_and_is_recorded(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = sha256_of(source)
    listing = tmp_path / "known.json"
    entry = {digest: {"file": "vae.pth", "origin": "here"}}
    listing.write_text(json.dumps({"format": 1, "about": "", "hashes": entry}))
    monkeypatch.setattr(module, "known_hashes", lambda: known_hashes(listing))
    (result,) = convert(source)
    assert result.listed
    record = json.loads((tmp_path / "convert.json").read_text())["files"]["vae.safetensors"]
    assert (record["source"], record["sha256"], record["listed"]) == ("vae.pth", digest, True)


def test_shipped_list_claims_nothing() -> None:
    assert known_hashes() == {}


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([torch.zeros(1)], "a list, not a table"),
        ({}, "a dict, not a table"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({"model": {"w": torch.zeros(1)}}, "'model' is a dict"),
        ({1: torch.zeros(1)}, "entry 1 is a Tensor"),
        ({"w": torch.zeros(2, 2).to_sparse()}, "'w' is a Tensor, not a plain tensor"),
    ],
)
def test_anything_but_a_table_of_tensors_is_refused(tmp_path: Path, content: object, named: str) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=named):
        convert(tmp_path / "x.pth", accept_unlisted=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04garbage", b"\x80\x04garbage", b"hello"])
def test_damaged_pickle_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.pth"):
        convert(tmp_path / "x.pth", accept_unlisted=True)
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


@pytest.mark.usefixtures("in_process")
def test_old_format_and_shared_memory_are_converted(tmp_path: Path) -> None:
    whole = torch.arange(8.0)
    state = {"a": whole[:4], "b": whole[4:], "c": whole, "d": whole.view(2, 4).t()}
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    convert(tmp_path / "old.pth", accept_unlisted=True)
    loaded = load_file(tmp_path / "old.safetensors")
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.usefixtures("in_process")
def test_existing_result_is_kept_unless_forced(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "vae.safetensors"
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already"):
        convert(source, accept_unlisted=True)
    assert target.read_bytes() == b"precious"
    convert(source, accept_unlisted=True, force=True)
    assert_converted(target)


@pytest.mark.usefixtures("in_process")
def test_folder_is_converted_once_audio_encoder_included(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (tmp_path / "chinese-wav2vec2-base").mkdir()
    folder.mkdir()
    torch.save(STATE, folder / "Wan2.1_VAE.pth")
    torch.save(STATE, tmp_path / "chinese-wav2vec2-base" / "pytorch_model.bin")
    seen: list[tuple[str, int, int]] = []
    convert(folder, accept_unlisted=True, progress=lambda path, done, size: seen.append((path.name, done, size)))
    assert_converted(folder / "Wan2.1_VAE.safetensors")
    assert_converted(tmp_path / "chinese-wav2vec2-base" / "model.safetensors")
    assert {name for name, done, size in seen if done == size} == {"Wan2.1_VAE.pth", "pytorch_model.bin"}
    assert all(result.kept for result in convert(folder))


def test_folder_without_pickles_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no \*\.pth"):
        convert(tmp_path)


@pytest.mark.usefixtures("in_process")
def test_full_disk_leaves_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic_files, "save_file", full)
    with pytest.raises(OutputError, match="disk is full"):
        convert(source, accept_unlisted=True)
    monkeypatch.setattr(module, "require_space", lambda folder, needed: atomic_files.require_space(folder, 10**18))
    with pytest.raises(OutputError, match="are needed"):
        convert(source, accept_unlisted=True)
    assert [p.name for p in tmp_path.iterdir()] == ["vae.pth"]


def test_killed_child_is_reported_and_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        Path(command[-1]).write_bytes(b"half")
        return subprocess.CompletedProcess(command, -9, b"", b"")

    monkeypatch.setattr(module.subprocess, "run", killed)
    with pytest.raises(CheckpointError, match="signal 9"):
        convert(source, accept_unlisted=True)
    assert [p.name for p in tmp_path.iterdir()] == ["vae.pth"]


@pytest.mark.usefixtures("in_process")
def test_source_that_changes_meanwhile_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = module._run_worker

    def swap(*arguments: Any) -> int:
        tensors = original(*arguments)
        source.write_bytes(source.read_bytes() + b"x")
        return tensors

    monkeypatch.setattr(module, "_run_worker", swap)
    with pytest.raises(ConversionRefused, match="changed"):
        convert(source, accept_unlisted=True)
    assert [p.name for p in tmp_path.iterdir()] == ["vae.pth"]
