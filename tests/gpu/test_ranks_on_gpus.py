"""Ranks on real cards: the frames of one engine, and all memory back after any death."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest
import torch
from fakes.daemons import running, wait_until
from fakes.faults import fail_at
from fakes.real import CONFIG, off_by, picture, read, real_config, speech
from PIL import Image

from livetalk_core.daemon.daemon_config import DaemonConfig
from livetalk_core.engine import Engine, generate
from livetalk_core.loading import load_model

CARDS = torch.cuda.device_count()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CARDS == 0, reason="needs a CUDA device"),
]
SLACK = 64 * 2**20


def _config(root: Path, model: Path, *faults: object, world: int) -> DaemonConfig:
    return real_config(root, model, *faults, world=world, device="cuda")  # type: ignore[arg-type]


def _free() -> int:
    return int(torch.cuda.mem_get_info(0)[0])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_on_cards_show_what_one_engine_shows(tmp_path: Path, tiny_model_folder: Path, world: int) -> None:
    if world > CARDS:
        pytest.skip(f"needs {world} CUDA devices, there are {CARDS}")
    engine = Engine(load_model(tiny_model_folder, "cuda:0", "fp32"))
    wanted = list(generate(engine, CONFIG, Image.open(io.BytesIO(picture())), [speech(3)]))
    with running(_config(tmp_path, tiny_model_folder, world=world)) as client:
        assert client.load_model().device == "cuda:0"
        with client.open_stream(CONFIG, picture()) as stream:
            stream.push_audio(speech(3), final=True)
            identical, largest = off_by(read(stream), [chunk.frames for chunk in wanted])
    assert identical >= 0.999 and largest <= 1


def test_memory_is_back_after_a_death_and_after_the_end(tmp_path: Path, tiny_model_folder: Path) -> None:
    torch.zeros(1, device="cuda:0")  # this process's own context is there from the beginning
    before = _free()
    with running(_config(tmp_path, tiny_model_folder, world=1)) as client:
        client.load_model()
        held = _free()
        assert held < before - SLACK
        os.kill(client.stats().ranks[0].pid, signal.SIGKILL)
        wait_until(lambda: (client.stats().restarts, client.stats().state) == (1, "ready"), 120, "the rank is replaced")
        assert abs(_free() - held) <= SLACK
    wait_until(lambda: _free() >= before - SLACK, 15, "all memory is back")


def test_stopped_rank_on_a_card_is_replaced(tmp_path: Path, tiny_model_folder: Path) -> None:
    faults = [fail_at("hang", rank=0, chunk=1, step=1)]
    with running(_config(tmp_path, tiny_model_folder, *faults, world=1)) as client:
        with client.open_stream(CONFIG, picture()) as stream:
            stream.push_audio(speech(3), final=True)
            assert len(read(stream)) == 3
        assert client.stats().restarts == 1
