"""Hostile weight files and folders: refused from headers alone, with the file and the key in the message."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from livetalk_core.errors import CheckpointError
from livetalk_core.loading import load_model
from livetalk_core.loading.convert import ConversionRefused, convert
from livetalk_core.loading.safetensors_header import MAX_HEADER_BYTES, MAX_TENSORS, read_header
from livetalk_core.loading.safetensors_stream import WeightSet
from livetalk_core.loading.shards import find_shards

pytestmark = pytest.mark.security

ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def raw_file(path: Path, header: object, data: bytes = bytes(8), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "data", "named"),
    [
        ({"w": {**ENTRY, "data_offsets": [0, 4]}}, bytes(4), "'w'.*needs 8"),
        ({"w": {**ENTRY, "data_offsets": [8, 16]}}, bytes(16), "'w' leaves a hole"),
        ({"v": ENTRY, "w": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12), "'w' overlaps"),
        ({"v": ENTRY, "w": ENTRY}, bytes(8), "overlaps"),
        ({"w": ENTRY}, bytes(7), "ends before the end of 'w'"),
        ({"w": ENTRY}, bytes(9), "1 bytes that its header does not describe"),
        ({"w": {**ENTRY, "dtype": "object"}}, bytes(8), "'w' in the unknown number format 'object'"),
        ({"w": {**ENTRY, "shape": [-2]}}, bytes(8), "describes 'w' wrongly"),
        ({"w": {**ENTRY, "shape": [2**62, 2**62]}}, bytes(8), "'w'.*needs"),
        ({"w": {**ENTRY, "shape": [1] * 9}}, bytes(8), "describes 'w' wrongly"),
        ({"w": {**ENTRY, "shape": [2.0]}}, bytes(8), "describes 'w' wrongly"),
        ({"w": {**ENTRY, "data_offsets": [0]}}, bytes(8), "describes 'w' wrongly"),
        ({"w": {**ENTRY, "data_offsets": [-8, 0]}}, bytes(8), "describes 'w' wrongly"),
        ({"w": {**ENTRY, "extra": 1}}, bytes(8), "describes 'w' wrongly"),
        ({"w": {**ENTRY, "data_offsets": [8, 0]}}, bytes(8), "'w'"),
        ({"w": [1, 2]}, bytes(8), "describes 'w' wrongly"),
        ({"__metadata__": {"a": 1}, "w": ENTRY}, bytes(8), "__metadata__"),
        ({}, b"", "holds no tensors"),
        (b"{" + b"[" * 5000, b"", "unreadable header"),
        (b'{"w": ' + b"[" * 100_000, b"", "unreadable header"),
        (b'{"w\xff": 1}', b"", "unreadable header"),
        (b"{not json", b"", "unreadable header"),
    ],
)
def test_header_that_lies_is_refused(tmp_path: Path, header: object, data: bytes, named: str) -> None:
    path = raw_file(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CheckpointError, match=named) as caught:
        read_header(path)
    assert str(path) in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "is empty"),
        (b"\0", "not a safetensors file"),
        (struct.pack("<Q", MAX_HEADER_BYTES + 1) + b"{" + bytes(64), "declares a header"),
        (struct.pack("<Q", 2**63) + b"{}", "declares a header"),
        (struct.pack("<Q", 50) + b'{"w"', "holds 12"),
        (b"PK\x03\x04" + bytes(60), "Python pickle"),
        (pickle.dumps({"w": 1}), "Python pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git-lfs pointer"),
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"GGUF\3\0\0\0" + bytes(30), "GGUF"),
    ],
)
def test_other_files_with_the_right_suffix_are_told_apart(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=named):
        read_header(path)


def test_true_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    # 0x0480 = 1152 bytes of header: the file begins as a pickle of protocol 4 does.
    text = json.dumps({"w": ENTRY}).encode()
    path = raw_file(tmp_path / "w.safetensors", text + b" " * (0x0480 - len(text)))
    assert path.read_bytes().startswith(b"\x80\x04")
    assert list(read_header(path).entries) == ["w"]


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = raw_file(tmp_path / "w.safetensors", {str(i): empty for i in range(MAX_TENSORS + 1)}, b"")
    with pytest.raises(CheckpointError, match="65,537 tensors"):
        read_header(path)


@settings(max_examples=200, deadline=None)
@given(
    position=st.integers(0, 400),
    value=st.integers(0, 255),
    cut=st.one_of(st.none(), st.integers(0, 600)),
)
def test_any_damage_gives_a_checkpoint_error_or_the_same_tensors(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int, cut: int | None
) -> None:
    tensors = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(5, dtype=torch.float16)}
    content = bytearray(save(tensors))
    content[position % len(content)] = value
    path = tmp_path_factory.mktemp("damage") / "w.safetensors"
    path.write_bytes(bytes(content[:cut]))
    try:
        weights = WeightSet.open([path])
        for key, tensor in weights.stream(list(weights), torch.device("cpu")):
            assert tuple(tensor.shape) == weights.entry(key).shape
    except CheckpointError as error:
        assert str(path) in error.message


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", tmp_path, Path("/dev/zero")):
        with pytest.raises(CheckpointError, match="not a regular file"):
            read_header(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path / "x\0y")


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ({"weight_map": {"w": "../../etc/passwd"}}, "passwd"),
        ({"weight_map": {"w": "/etc/passwd.safetensors"}}, "passwd"),
        ({"weight_map": {"w": "..\\w.safetensors"}}, "w.safetensors"),
        ({"weight_map": {"w": "sub/w.safetensors"}}, "sub/w"),
        ({"weight_map": {"w": "w\0.safetensors"}}, "not a .safetensors file beside it"),
        ({"weight_map": {"w": 3}}, "points at 3"),
        ({"weight_map": {"w": "gone.safetensors"}}, "gone.safetensors"),
        ({"weight_map": {"other": "w.safetensors"}}, "'other'"),
        ({"weight_map": {}}, "no weight_map"),
        ({}, "no weight_map"),
        ([], "JSON object"),
        ("{", "JSON"),
    ],
)
def test_index_that_lies_is_refused(tmp_path: Path, index: object, named: str) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "w.safetensors")
    file = tmp_path / "model.safetensors.index.json"
    file.write_text(index if isinstance(index, str) else json.dumps(index))
    with pytest.raises(CheckpointError, match=named.replace("\0", ".")) as caught:
        find_shards(tmp_path, "model")
    assert str(file) in caught.value.message


def test_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    for index in (1, 2):
        save_file({"w": torch.zeros(2)}, tmp_path / f"model-0000{index}-of-00002.safetensors")
    with pytest.raises(CheckpointError, match=r"00002-of-00002.*'w'.*00001-of-00002"):
        WeightSet.open(find_shards(tmp_path, "model"))


def test_incomplete_shards_are_refused(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(CheckpointError, match="incomplete set of shards"):
        find_shards(tmp_path, "model")


def _edit(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("transformer", lambda t: t.pop("head.head.bias"), r"lacks.*'head\.head\.bias'"),
        ("transformer", lambda t: t.update(evil=torch.zeros(1)), "does not have: 'evil'"),
        (
            "vae",
            lambda t: t.update({"decoder.conv_in.weight": torch.zeros(3)}),
            r"'decoder\.conv_in\.weight'.*\[3\]",
        ),
        (
            "vae",
            lambda t: t.update({"quant_conv.bias": t["quant_conv.bias"].int()}),
            r"'quant_conv\.bias' holds",
        ),
        (
            "image_encoder",
            lambda t: t.clear() or t.update(a=torch.zeros(1)),
            "not the weights of a known image",
        ),
        ("audio_encoder", lambda t: t.pop("encoder.layer_norm.bias"), r"lacks.*'encoder\.layer_norm\.bias'"),
        (
            "audio_encoder",
            lambda t: t.update({"encoder.pos_conv_embed.conv.weight_g": torch.zeros(1, 1, 16)}),
            "both fill",
        ),
    ],
)
def test_wrong_tensors_are_named_with_their_file(
    tiny_model_folder: Path, tmp_path: Path, part: str, change: Callable[[Any], object], named: str
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (file,) = (folder / part).glob("*.safetensors")
    _edit(file, change)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_model(folder, "cpu", "fp32")
    assert str(file) in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("part", "content", "named"),
    [
        ("transformer", '{"num_layers": 1000000000}', "num_layers to 1000000000"),
        ("transformer", '{"dim": 99999999}', "dim to 99999999"),
        ("transformer", '{"dim": "big"}', "transformer"),
        ("transformer", '{"dim": 50, "num_heads": 7}', "dim 50"),
        ("vae", '{"dim_mult": []}', "VAE"),
        ("vae", '{"dim_mult": ' + "[" * 3000 + "]" * 3000 + "}", "config.json"),
        ("audio_encoder", '{"num_hidden_layers": -1000}', "num_hidden_layers"),
        ("image_encoder", '{"hidden_size": 0}', "image"),
        ("image_encoder", "not json", "JSON"),
        ("image_encoder", "[1]", "JSON object"),
        ("image_encoder", json.dumps({str(i): i for i in range(5000)}), "more than 4096"),
    ],
)
def test_hostile_configuration_is_refused(
    tiny_model_folder: Path, tmp_path: Path, part: str, content: str, named: str
) -> None:
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    (folder / part / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=named) as caught:
        load_model(folder, "cpu", "fp32")
    assert str(folder / part) in caught.value.message


class Payload:
    """Makes a folder when a pickle of it is loaded without care."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.canary),))


def test_pickle_renamed_to_safetensors_is_never_run(tiny_model_folder: Path, tmp_path: Path) -> None:
    payload = Payload(tmp_path / "canary")
    folder = shutil.copytree(tiny_model_folder, tmp_path / "model")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    for content in (pickle.dumps(payload), None):
        if content is None:
            torch.save(payload, weights)
        else:
            weights.write_bytes(content)
        with pytest.raises(CheckpointError, match="Python pickle"):
            load_model(folder, "cpu", "fp32")
    assert not (tmp_path / "canary").exists()


@pytest.mark.timeout(300)  # starts an interpreter with torch
def test_converter_refuses_code_and_does_not_run_it(tmp_path: Path) -> None:
    torch.save({"w": Payload(tmp_path / "canary")}, tmp_path / "evil.pth")
    with pytest.raises(ConversionRefused, match=r"evil\.pth is refused.*mkdir") as caught:
        convert(tmp_path / "evil.pth", accept_unlisted=True)
    assert not (tmp_path / "canary").exists()
    assert "weights_only" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pth"]


@pytest.mark.parametrize("path", ["x\0y", "a" * 5000, "/dev/null", "", "../" * 40 + "nowhere"])
def test_odd_paths_are_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load_model(path, "cpu", "fp32")
    assert caught.value.hint
