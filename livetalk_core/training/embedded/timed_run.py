"""The loop of the runs behind the embedded model: a time budget, Muon beside AdamW, the same weights on all ranks.

Ranks, averages, metrics and checkpoints are those of the trainer (`trainer.loop`). The loop is not: that one counts
iterations and shards rows with FSDP2, while these schedules follow the share of the time that has passed, summed over
resumes, and Muon needs whole matrices.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ...errors import TrainingError
from ..trainer.average import MovingAverage
from ..trainer.checkpoint import has_checkpoint, load_tensors, newest_checkpoint, read_facts, save_checkpoint
from ..trainer.metrics import MetricLog
from ..trainer.optimizer_state import optimizer_tensors, prepare_adam_state
from ..trainer.ranks import Ranks
from ..trainer.same_settings import require_same

_SAVE_SECONDS = 120.0
_KEPT = 2
_logger = logging.getLogger("livetalk")


def cosine(share: float, floor: float = 0.03) -> float:
    """Cosine decay from 1 to `floor` over share 0..1."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a run moves.

    Attributes:
        minutes: Time budget, resumed parts included.
        learning_rate: Its peak.
        schedule: Share of the time that has passed -> factor of the learning rate.
        warm_up: Steps in which the learning rate rises to that.
        average_decay: Of the moving average that is exported.
        log_every: Steps averaged into one line of metrics.
        seed: Decides every random number of the run, together with rank and step.
    """

    minutes: float
    learning_rate: float
    schedule: Callable[[float], float] = cosine
    warm_up: int
    average_decay: float
    log_every: int = 50
    seed: int = 0


class Task(Protocol):
    """What is trained: a network and its loss; everything else is the run's."""

    @property
    def network(self) -> nn.Module:
        """All of the weights; those that need no gradient stand still."""
        ...

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon or AdamW over the weights that are trained."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a continued run must share besides its settings, plain values."""
        ...

    def loss(self, rng: np.random.Generator, share: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of this rank's batch, and scalars for the log.

        Args:
            rng: Of this rank and step; torch's own generator is seeded from it, too.
            share: Of the time budget that has passed, the same on all ranks.
        """
        ...

    def export(self, average: dict[str, Tensor]) -> None:
        """Write the result; `average` has the averaged weights by name."""
        ...


class TimedRun:
    """One run of one task.

    Args:
        task: What is trained.
        out: Folder of checkpoints and metrics.
        ranks: Of the run; each takes batches of its own, gradients are averaged.
        pace: Of the run.
        settings: The task's dataclass of settings, for the record.
    """

    def __init__(self, task: Task, out: Path, ranks: Ranks, pace: Pace, settings: Any) -> None:
        self.task, self.out, self.ranks, self.pace, self.settings = task, out, ranks, pace, settings
        self.average = MovingAverage(task.network, pace.average_decay)
        self.step = self.updates = 0
        for optimizer in task.optimizers:
            if isinstance(optimizer, torch.optim.AdamW):
                prepare_adam_state(optimizer)
        self._trained = [p for p in task.network.parameters() if p.requires_grad]
        self._before, self._begun = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Time spent on the run so far, in earlier sessions too."""
        return self._before + time.monotonic() - self._begun

    def run(self, resume: bool = False) -> None:
        """Train until the time is used up, with checkpoints and metrics on the way, and export the average.

        Raises:
            TrainingError: nothing to resume, or a folder that holds a run and is not to be resumed.
            OutputError: the disk is full.
        """
        if resume:
            self.resume()
        elif has_checkpoint(self.out / "checkpoints"):
            raise TrainingError(f"{self.out} holds a run already.", "Add --resume, or choose another folder.")
        log = MetricLog(self.out, self.ranks.first, self.step)
        budget = 60 * self.pace.minutes
        self._begun = time.monotonic()
        share = saved = self._before / budget
        while share < 1:
            values, share = self.update(share)
            log.add(values)
            if self.step % self.pace.log_every == 0 or share >= 1:
                row = log.write(self.step, seconds=round(self.seconds, 1))
                if self.ranks.first:
                    _logger.info("%s", ", ".join(f"{name} {value}" for name, value in row.items()))
            # By the clock that all ranks agree on.
            if (share - saved) * budget > _SAVE_SECONDS or share >= 1:
                self.save()
                saved = share
        log.plot(self.out.name)
        if self.ranks.first:
            self.task.export(self.average.state)

    def update(self, share: float) -> tuple[dict[str, float], float]:
        """One step; the values to log, means over ranks, and the share of the time that has passed after it.

        A step whose gradient is no number is left out.
        """
        rng = np.random.default_rng([self.pace.seed, self.ranks.rank, self.step])
        torch.manual_seed(int(rng.integers(2**63)))
        loss, facts = self.task.loss(rng, share)
        self.task.network.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        passed = torch.tensor(self.seconds / (60 * self.pace.minutes))
        *values, after = self._average_over_ranks([loss.detach(), *facts.values(), passed])
        norm = nn.utils.clip_grad_norm_(self._trained, 1.0)
        if torch.isfinite(norm):
            self._apply(share)
        self.step += 1
        return dict(zip(["loss", *facts, "gradient"], [*values, float(norm)], strict=True)), after

    def _average_over_ranks(self, scalars: list[Tensor]) -> list[float]:
        """Average all gradients and these scalars in one call; returns the scalars."""
        means = torch.stack(scalars).float()
        if self.ranks.world > 1:
            gradients = [p.grad for p in self._trained if p.grad is not None]
            flat = self.ranks.mean(torch.cat([means, *(g.flatten() for g in gradients)]))
            means, *parts = flat.split([len(scalars), *(g.numel() for g in gradients)])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        return [float(value) for value in means]

    def _apply(self, share: float) -> None:
        """Step all optimisers at the learning rate of this share of the time, and average."""
        warm = min(1.0, (self.step + 1) / self.pace.warm_up)
        for optimizer in self.task.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.pace.learning_rate * warm * self.pace.schedule(share)
            optimizer.step()
        self.average.update()
        self.updates += 1

    def save(self) -> None:
        """Write a checkpoint; all ranks call this, the first one's file holds everything."""
        facts = {"seconds": self.seconds, "updates": self.updates, **self._facts()}
        tensors = self._tensors() if self.ranks.first else {}
        save_checkpoint(self.out / "checkpoints", self.step, tensors, facts, self.ranks, _KEPT)

    def resume(self) -> None:
        """Go on from the newest readable checkpoint of the folder.

        Raises:
            TrainingError: there is none, or it is of another task or other settings.
        """
        path = newest_checkpoint(self.out / "checkpoints")
        facts = read_facts(path)
        ours = self._facts()
        saved = {"settings": {**facts["settings"]}, "task": facts.get("task", {})}
        saved["settings"].pop("minutes", None)
        # Checkpoints of the time before facts about the task were written down have none.
        require_same(path, saved, ours, {f"task.{name}" for name in ours["task"]})
        self.step, self.updates = facts["iteration"], facts["updates"]
        self._before, self._begun = facts["seconds"], time.monotonic()
        self.average.updates = self.updates
        load_tensors(path, self._tensors())

    def _facts(self) -> dict[str, Any]:
        """What a continued run must share; it may be given more time."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "minutes"}
        return {"settings": settings, "task": dict(self.task.facts)}

    def _tensors(self) -> dict[str, Tensor]:
        network = self.task.network
        tensors = {f"weights.{name}": p.detach() for name, p in network.named_parameters()}
        tensors |= {f"average.{name}": value for name, value in self.average.state.items()}
        return tensors | optimizer_tensors(network, *self.task.optimizers)
