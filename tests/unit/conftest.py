"""What several files of this tier share; read only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_bundle import tiny_bundle

from livetalk_core.engine import Engine
from livetalk_core.loading import load_model
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.training.data.prepared import PreparedSet


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """All tensors of this tier are too small for a second thread to be of use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_model(tiny_model_folder: Path) -> ModelBundle:
    """The tiny model, loaded."""
    return load_model(tiny_model_folder, "cpu", "fp32")


@pytest.fixture(scope="session")
def prepared(prepared_folder: Path) -> PreparedSet:
    """The prepared clips of the tiny model, opened."""
    return PreparedSet(prepared_folder)


@pytest.fixture(scope="session")
def engine() -> Engine:
    """An engine with the tiny bundle."""
    return Engine(tiny_bundle())
