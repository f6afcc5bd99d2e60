"""Devices and number formats: what is not there is refused by name, what is free to choose is chosen well."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from livetalk_core.errors import DeviceError
from livetalk_core.loading import placement
from livetalk_core.loading.hardware import cpu_has_bf16
from livetalk_core.loading.placement import (
    choose_placement,
    require_memory,
    resolve_device,
    resolve_dtype,
)

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_absent_cuda_is_explained() -> None:
    with pytest.raises(DeviceError, match=r"'cuda'.*available: cpu") as caught:
        resolve_device("cuda")
    assert ("nvidia-smi" if torch.version.cuda else "CUDA build of torch") in caught.value.hint
    assert resolve_device("auto") == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "mps:7", "meta"])
def test_unknown_device_lists_the_available_ones(name: str) -> None:
    with pytest.raises(DeviceError, match=r"[Dd]evice") as caught:
        resolve_device(name)
    assert "cpu" in caught.value.hint


@pytest.mark.parametrize("name", ["fp8", "double", ""])
def test_unknown_format_is_refused(name: str) -> None:
    with pytest.raises(DeviceError, match="number format"):
        resolve_dtype(name, CPU)
    with pytest.raises(DeviceError, match="fp16 was asked for on the CPU"):
        resolve_dtype("fp16", CPU)
    with pytest.raises(DeviceError, match="int8"):
        resolve_dtype(torch.int8, CPU)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("amx_bf16 amx_tile", True),
        ("fpu avx2 avx512f", False),
        ("", False),
    ],
)
def test_bf16_is_chosen_where_the_cpu_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, expected: bool
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert cpu_has_bf16(file) is expected
    assert not cpu_has_bf16(tmp_path / "absent")
    monkeypatch.setattr(placement, "cpu_has_bf16", lambda: expected)
    chosen = choose_placement("cpu", "auto")
    assert chosen.dtype is chosen.text_dtype is (torch.bfloat16 if expected else torch.float32)
    assert chosen.image_dtype is chosen.audio_dtype is torch.float32


def test_weights_that_cannot_fit_are_refused_before_loading(caplog: pytest.LogCaptureFixture) -> None:
    memory = placement.memory_of(CPU)
    assert memory is not None
    free, total = memory
    with pytest.raises(DeviceError, match="The weights of m need"):
        require_memory(total + 1, CPU, "m")
    with caplog.at_level(logging.WARNING, "livetalk"):
        require_memory(min(free // 2, total), CPU, "m")
        assert not caplog.records
        require_memory(total, CPU, "m")
    assert free == total or "may fail" in caplog.text
