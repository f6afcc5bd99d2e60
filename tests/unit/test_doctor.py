"""The doctor on machines that are not well: every fault is a finding, none of them ends the examination."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from livetalk_core.diagnostics import capability, checks
from livetalk_core.diagnostics.checks import Finding
from livetalk_core.diagnostics.doctor import diagnose
from livetalk_core.loading import placement

pytestmark = pytest.mark.unit
CARD = {"name": "NVIDIA L40S", "memory_bytes": 47_700_000_000, "capability": "8.9"}


def found(subject: str, **arguments: Any) -> list[Finding]:
    return [each for each in diagnose(timing=False, **arguments).findings if each.subject.startswith(subject)]


def test_a_model_that_fails_in_an_unforeseen_way_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    monkeypatch.setattr(capability, "_try_embedded", fail)
    diagnosis = diagnose(models=())
    (finding,) = [each for each in diagnosis.findings if each.subject == "embedded model"]
    assert finding.status == "problem" and "OutOfMemoryError: CUDA out of memory. Tried" in finding.text
    assert not diagnosis.capabilities[0].runs


def test_a_card_of_48_gb_runs_the_14b_model_with_its_encoders_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capability, "graphics_cards", lambda: [CARD, CARD | {"memory_bytes": 24e9}])
    monkeypatch.setattr(placement, "memory_of", lambda _: (60 * 10**9, 64 * 10**9))
    rows, _ = capability.capabilities(timing=False)
    assert [row.runs for row in rows] == [True, False]
    assert "--offload encoders" in rows[0].text
    monkeypatch.setattr(placement, "memory_of", lambda _: (6 * 10**9, 8 * 10**9))
    rows, _ = capability.capabilities(timing=False)
    assert not any(row.runs for row in rows)


def test_memory_is_what_a_container_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "_container_limit", lambda: 2**30)
    (finding,) = found("memory", models=())
    assert finding.status == "problem" and "of 1.0 GiB" in finding.text


def test_a_driver_that_torch_cannot_use_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "graphics_cards", list)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "nvidia-smi" else None)
    (finding,) = found("GPU", models=())
    assert finding.status == "problem" and "sees no GPU" in finding.text
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = found("GPU", models=())
    assert finding.status == "note" and "CUDA_VISIBLE_DEVICES" in finding.text


def test_folders_that_nobody_named_need_not_hold_models(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "checkpoints").mkdir(parents=True)
    assert not found("model")
    shutil.copytree(tiny_model_folder, tmp_path / "models" / "livetalk" / "presenter")
    (finding,) = found("model")
    assert finding.status == "ok" and finding.subject == f"model {Path('models', 'livetalk', 'presenter')}"
    (finding,) = found("model", models=[Path("models")])
    assert finding.status == "problem"


def test_folders_that_are_not_for_us_are_passed_by(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11 raises for what lies in a folder of another user; as root nothing is forbidden."""
    shutil.copytree(tiny_model_folder, tmp_path / "presenter")
    (tmp_path / "lost+found").mkdir()
    real = Path.is_file

    def is_file(path: Path) -> bool:
        if "lost+found" in path.parts:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "is_file", is_file)
    (finding,) = found("model", models=[tmp_path])
    assert finding.status == "ok"
