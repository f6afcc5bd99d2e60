"""What several files of this tier share; read only."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_bundle import tiny_bundle

from livetalk_core.engine import Engine
from livetalk_core.errors import MissingDependencyError
from livetalk_core.loading import load_model
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.training.data.prepared import PreparedSet


@cache
def _why_nothing_can_be_drawn() -> str:
    """Not every machine has the graphics libraries that skia-python is linked to; empty where it can be loaded."""
    try:
        importlib.import_module("skia")
    except ImportError as error:
        return f"drawing needs skia-python ({error}): apt-get install libegl1 libgl1 libfontconfig1"
    return ""


@contextmanager
def _skipped_where_nothing_can_be_drawn() -> Iterator[None]:
    try:
        yield
    except MissingDependencyError as error:
        if "skia" in error.message and (why := _why_nothing_can_be_drawn()):
            pytest.skip(why)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _skipped_where_nothing_can_be_drawn():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    with _skipped_where_nothing_can_be_drawn():
        yield


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
