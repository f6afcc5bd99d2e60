"""Fixtures that several tiers share."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure: pytest-timeout bounds a test, not the time of one example.
settings.register_profile("livetalk", deadline=None)
settings.load_profile("livetalk")


def pytest_collection(session: pytest.Session) -> None:
    """Importing a million objects that stay makes no garbage; looking for it would take a quarter of the time."""
    gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported lives until the end: the tests' own garbage is found without walking over all of it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny model in LiveTalk's own layout; read only."""
    # Late, so that tests without models do not import torch.
    from tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """Prepared clips of the tiny model; read only."""
    from training_data import write_prepared

    return write_prepared(tmp_path_factory.mktemp("data") / "prepared", tiny_model_folder)
