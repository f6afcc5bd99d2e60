"""What every small training run shares: averaged gradients over ranks, moving averages, resumable checkpoints, a log.

Runs are time-budgeted: the learning-rate schedule follows the share of the budget that has passed, summed over resumes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ...errors import TrainingError

logger = logging.getLogger("livetalk")


def join_ranks() -> tuple[int, int]:
    """(rank, world size); starts gloo when run under torchrun."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("gloo")
    return int(os.environ.get("RANK", "0")), world


def average_gradients(parameters: Iterable[Tensor], extra: Tensor) -> Tensor:
    """Average all gradients and the small tensor `extra` over the ranks in one call; returns the averaged `extra`."""
    if not dist.is_initialized():
        return extra
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([extra.float().flatten(), *(g.flatten() for g in grads)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = extra.numel()
    for grad in grads:
        grad.copy_(flat[at : at + grad.numel()].view_as(grad))
        at += grad.numel()
    return flat[: extra.numel()].view_as(extra)


class MovingAverage:
    """Exponential moving average of a module's state, with a warm-up."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.steps = module, decay, 0
        self.state = {k: v.detach().clone() for k, v in module.state_dict().items() if v.is_floating_point()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the present weights."""
        self.steps += 1
        weight = 1 - min(self.decay, self.steps / (self.steps + 20))
        current = self.module.state_dict()
        torch._foreach_lerp_(list(self.state.values()), [current[k] for k in self.state], weight)


class Budget:
    """Wall-clock budget of a run; `share` in [0, 1) drives the schedules."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.seconds, self.start = minutes * 60, time.monotonic() - spent

    @property
    def spent(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.start

    @property
    def share(self) -> float:
        """Of the budget that is spent; above 1 once it is used up."""
        return self.spent / self.seconds


def cosine(share: float, floor: float = 0.03) -> float:
    """Cosine decay from 1 to `floor` over share 0..1."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def optimizer_tensors(optimizers: list[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimisers' state as flat tensors, by position of the parameter."""
    out: dict[str, Tensor] = {}
    for number, optimizer in enumerate(optimizers):
        for index, state in optimizer.state_dict()["state"].items():
            out |= {f"optimizer.{number}.{index}.{k}": torch.as_tensor(v).clone() for k, v in state.items()}
    return out


def restore_optimizers(optimizers: list[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`."""
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            parts = name.split(".")
            if parts[0] == "optimizer" and parts[1] == str(number):
                state.setdefault(int(parts[2]), {})[parts[3]] = tensor
        full = optimizer.state_dict()
        full["state"] = state
        optimizer.load_state_dict(full)


def save_checkpoint(path: Path, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write tensors and facts as one safetensors file, replacing the old one only when complete."""
    part = path.with_suffix(".part")
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, part, {"facts": json.dumps(facts)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_checkpoint` wrote.

    Raises:
        TrainingError: no checkpoint is there.
    """
    if not path.is_file():
        raise TrainingError(f"There is no checkpoint {path}.", "Start the run without --resume.")
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        facts = json.loads((file.metadata() or {}).get("facts", "{}"))
    return load_file(path), facts


def with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under `prefix.name`."""
    return {f"{prefix}.{k}": v for k, v in tensors.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix.`, named without it."""
    return {k[len(prefix) + 1 :]: v for k, v in tensors.items() if k.startswith(prefix + ".")}


class ResumableRun:
    """What a training run keeps between sessions: weights, their average, optimisers, steps and time spent.

    Args:
        out: Folder of checkpoint and metrics.
        module: What is trained.
        optimizers: Over the module's parameters.
        decay: Of the moving average.
        minutes: Time budget.
        active: Whether this rank writes the metrics.
    """

    def __init__(
        self,
        out: Path,
        module: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        *,
        decay: float,
        minutes: float,
        active: bool,
    ) -> None:
        self.out, self.module, self.optimizers = out, module, optimizers
        self.average = MovingAverage(module, decay)
        self.minutes, self.budget, self.step = minutes, Budget(minutes), 0
        self.log = MetricLog(out / "metrics.jsonl", active)

    def update(self, rate: float) -> Tensor:
        """One step of all optimisers at this learning rate, left out if a gradient is not finite; its norm."""
        norm = nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if torch.isfinite(norm):
                optimizer.step()
        self.step += 1
        self.average.update()
        return norm

    def save(self, config: Any) -> None:
        """Write the checkpoint; `config` is the run's dataclass of settings, for the record."""
        tensors = with_prefix("model", self.module.state_dict()) | with_prefix("average", self.average.state)
        tensors |= optimizer_tensors(self.optimizers)
        facts = {"step": self.step, "spent": self.budget.spent, "config": asdict(config)}
        save_checkpoint(self.out / "checkpoint.safetensors", tensors, facts)

    def resume(self) -> None:
        """Continue from the folder's checkpoint."""
        tensors, facts = load_checkpoint(self.out / "checkpoint.safetensors")
        self.module.load_state_dict(without_prefix("model", tensors))
        self.average.state = without_prefix("average", tensors)
        self.average.steps = self.step = facts["step"]
        restore_optimizers(self.optimizers, tensors)
        self.budget = Budget(self.minutes, facts["spent"])


class MetricLog:
    """Metrics averaged over steps, one JSON line each time they are written."""

    def __init__(self, path: Path, active: bool) -> None:
        self.path, self.active, self.sums, self.count = path, active, torch.zeros(0), 0

    def add(self, values: Tensor) -> None:
        """Take in the values of one step [n]."""
        self.sums = values.clone() if self.count == 0 else self.sums + values
        self.count += 1

    def write(self, names: list[str], **facts: Any) -> None:
        """One line: facts, and the means since the last one under these n names."""
        row = facts | dict(zip(names, (round(float(v), 5) for v in self.sums / max(1, self.count)), strict=True))
        self.count = 0
        if self.active:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            logger.info("%s", row)
