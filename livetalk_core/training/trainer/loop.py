"""The loop: batch, losses, updates, averages, metrics, checkpoints, sample videos."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor

from ...errors import TrainingError
from ..recipes import RunConfig, TrainingRecipe
from .checkpoint import load_tensors, newest_checkpoint, read_facts, save_checkpoint
from .draws import Draws
from .method import Method
from .metrics import MetricLog
from .ranks import Ranks
from .same_settings import require_same
from .sharding import fill_network, shard_network
from .updates import UpdatedNetwork

_logger = logging.getLogger("livetalk")
_CHANGEABLE = (
    "iterations", "accumulate", "save_every", "keep", "log_every", "sample_every", "offload", "checkpoint_activations",
)  # fmt: skip
"""Settings of a run that may differ when it is continued: none of them changes what an update learns from; like the
number of ranks, `accumulate` changes the order in which its samples are summed."""

_PLOT_SECONDS = 60.0

Observer = Callable[[dict[str, Any]], None]
"""Sees every line of metrics."""


class Data(Protocol):
    """Where batches come from."""

    def draw(self, draws: Draws, chunks: int) -> Any:
        """This rank's clips of one micro-batch, each with so many consecutive chunks."""
        ...


class Sampler(Protocol):
    """Makes sample videos from the networks as they are."""

    def __call__(self, iteration: int) -> None: ...


class Trainer:
    """One run of one method.

    Args:
        method: Networks and losses; its networks are sharded here, in place.
        data: Batches.
        recipe: Settings; those of the method are only recorded.
        out: Folder of checkpoints, metrics and samples.
        ranks: Of the run.
        identity: Facts about model and data that a continued run must share.
        observe: Sees metrics.
        sample: Makes sample videos, if wanted.
    """

    def __init__(
        self,
        method: Method,
        data: Data,
        recipe: TrainingRecipe,
        out: Path,
        ranks: Ranks,
        *,
        identity: dict[str, Any] | None = None,
        observe: Observer | None = None,
        sample: Sampler | None = None,
    ) -> None:
        self.method, self.data, self.recipe, self.out, self.ranks = method, data, recipe, out, ranks
        self.iteration = 0
        self._identity = identity or {}
        self._observe, self._sample = observe, sample
        run = recipe.run
        if run.batch % (run.accumulate * ranks.world):
            raise TrainingError(
                f"A batch of {run.batch} does not divide into {ranks.world} ranks x {run.accumulate} micro-batches.",
                "Change run.batch or run.accumulate.",
            )
        for frozen in method.networks.frozen.values():
            shard_network(frozen.network, ranks, run, trained=False)
            if frozen.weights is not None:
                fill_network(frozen.network, frozen.weights(), ranks.device)
        self._updated = {name: UpdatedNetwork(each, ranks, run) for name, each in method.networks.trained.items()}
        self.log: MetricLog | None = None
        self._plotted = time.monotonic()

    @property
    def run_config(self) -> RunConfig:
        """Settings of the loop."""
        return self.recipe.run

    def resume(self) -> None:
        """Continue from the newest readable checkpoint of the folder.

        Raises:
            TrainingError: there is none, or it is of another model or recipe.
        """
        path = newest_checkpoint(self.out / "checkpoints")
        facts = read_facts(path)
        self._check_same(facts["run"], path)
        self.iteration = facts["iteration"]
        for name, updated in self._updated.items():
            updated.expect(facts["updates"][name])
        load_tensors(path, self._tensors())

    def run(self) -> None:
        """Train to the recipe's last iteration, with checkpoints, metrics and samples on the way.

        Raises:
            TrainingError: a loss became NaN or infinite.
            OutputError: a checkpoint could not be written.
        """
        run = self.run_config
        self.log = MetricLog(self.out, self.ranks.first, self.iteration)
        started = time.monotonic()
        while self.iteration < run.iterations:
            self.log.add(self.update())
            last = self.iteration == run.iterations
            if self.iteration % run.log_every == 0 or last:
                row = self.log.write(self.iteration, seconds=round(time.monotonic() - started, 1))
                if self._observe is not None and self.ranks.first:
                    self._observe(row)
            if self.iteration % run.save_every == 0 or last:
                self.save()
                self._plot(last)
            if self._sample is not None and run.sample_every and (self.iteration % run.sample_every == 0 or last):
                self._sample(self.iteration)

    def _plot(self, last: bool) -> None:
        """Draw the curves, but not so often that it counts."""
        now = time.monotonic()
        if self.log is not None and (last or now - self._plotted > _PLOT_SECONDS):
            self._plotted = now
            self.log.plot(f"{self.recipe.name}, {type(self.recipe.method).__name__.removesuffix('Config')}")

    def update(self) -> dict[str, float]:
        """One iteration; the values to log, means over ranks and micro-batches."""
        run = self.run_config
        totals: dict[str, Tensor] = {}
        turn: list[str] = []
        for micro in range(run.accumulate):
            batch = self.data.draw(self._draws(micro), self.method.chunks(self.iteration))
            # Every micro-batch exchanges its gradients: kept back until the last one, they would lie whole, in float32,
            # on every rank (75 GB of the 14B model).
            losses, outputs = self.method.step(batch, self.iteration)
            turn = list(losses)
            for name, loss in losses.items():
                torch.autograd.backward(loss / run.accumulate)
                outputs = outputs | {f"{name}.loss": loss.detach()}
            for name, value in outputs.items():
                totals[name] = totals.get(name, torch.zeros_like(value)) + value / run.accumulate
        values = dict(zip(totals, self.ranks.mean(torch.stack(list(totals.values()))).tolist(), strict=True))
        self._require_finite(values)
        norms = {f"{name}.gradient": self._updated[name].gradient_norm() for name in turn}
        self._require_finite(norms)
        for name in turn:
            self._updated[name].step()
        self.iteration += 1
        return values | norms

    def save(self) -> Path:
        """Write a checkpoint; see `save_checkpoint`."""
        facts = {"run": self._facts(), "updates": {name: u.updates for name, u in self._updated.items()}}
        folder = self.out / "checkpoints"
        return save_checkpoint(folder, self.iteration, self._tensors(), facts, self.ranks, self.run_config.keep)

    def _draws(self, micro: int) -> Draws:
        run = self.run_config
        each = run.batch // (run.accumulate * self.ranks.world)
        first = (micro * self.ranks.world + self.ranks.rank) * each
        return Draws(run.seed, self.iteration, range(first, first + each))

    def _require_finite(self, values: dict[str, float]) -> None:
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise TrainingError(
                f"{bad[0]} is {values[bad[0]]} in iteration {self.iteration}; nothing was updated in it.",
                "Check the data, or take a smaller learning rate: earlier checkpoints are intact, and an exported one "
                "can be the --model of a new run.",
                iteration=self.iteration,
            )

    def _tensors(self) -> dict[str, Tensor]:
        """Everything a checkpoint holds, sharded."""
        return {
            f"{name}.{key}": tensor for name, each in self._updated.items() for key, tensor in each.tensors().items()
        }

    def _facts(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self.recipe)
        return {"run": _lasting(plain["run"]), "method": plain["method"], **self._identity}

    def _check_same(self, saved: dict[str, Any], path: Path) -> None:
        # Earlier versions wrote down more of what may change, and less about model and data.
        require_same(path, {**saved, "run": _lasting(saved["run"])}, self._facts(), unknown=self._identity)


def _lasting(run: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run that may not change."""
    return {key: value for key, value in run.items() if key not in _CHANGEABLE}
