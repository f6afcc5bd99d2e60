"""Training on several ranks: what a rank of any world measures over two iterations of both stages."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tiny_model import write_tiny_model
from training_data import recipe, write_prepared

from livetalk_core.parallel.groups import Groups
from livetalk_core.training.start import RunRequest, build_trainer
from livetalk_core.training.trainer.ranks import join_ranks
from livetalk_core.training.trainer.sharding import whole

Case = Callable[[Groups], dict[str, Any]]


def cases(world: int) -> dict[str, Case]:
    """Both stages, and a checkpoint that this world writes and reads."""
    return {
        "stage1": lambda groups: _updates("stage1"),
        "stage2": lambda groups: _updates("stage2"),
        "checkpoint": _checkpoint,
    }


@lru_cache(maxsize=1)
def _folders() -> tuple[Path, Path]:
    """A model and prepared data, made by this rank alone: the same bytes on every rank."""
    folder = Path(tempfile.mkdtemp())
    model = write_tiny_model(folder / "model")
    return model, write_prepared(folder / "data", model)


def _updates(stage: str) -> dict[str, Any]:
    model, data = _folders()
    with join_ranks("cpu") as ranks, tempfile.TemporaryDirectory() as out:
        settings = recipe(stage, batch=4, method__ema_decay=0.0)
        trainer = build_trainer(RunRequest(settings, model, data, Path(out)), ranks)
        values = [trainer.update() for _ in range(3)]
        weights = {name: whole(tensor) for name, tensor in trainer._tensors().items() if ".weights." in name}
        norms = {name: float(value.float().norm()) for name, value in weights.items()}
        local = sum(p.to_local().numel() for p in trainer.method.networks.trained[_first(stage)].network.parameters())
    return {"values": values, "norms": norms, "local": local}


def _first(stage: str) -> str:
    return "denoiser" if stage == "stage1" else "student"


def _checkpoint(groups: Groups) -> dict[str, Any]:
    """A run of this world, continued by this world: the next values are those of the run that went on."""
    model, data = _folders()
    with join_ranks("cpu") as ranks:
        folder = _shared_path(tempfile.mkdtemp() if ranks.first else "")
        request = RunRequest(recipe("stage1", batch=4), model, data, folder / "run")
        first = build_trainer(request, ranks)
        first.update()
        first.save()
        went_on = first.update()
        second = build_trainer(request, ranks)
        second.resume()
        resumed = second.update()
    return {"went_on": went_on, "resumed": resumed}


def _shared_path(path: str) -> Path:
    """Rank 0's path on every rank, as bytes in a tensor."""
    buffer = torch.zeros(256, dtype=torch.uint8)
    buffer[: len(path.encode())] = torch.tensor(list(path.encode()), dtype=torch.uint8)
    dist.broadcast(buffer, 0)
    return Path(bytes(buffer.tolist()).rstrip(b"\0").decode())
