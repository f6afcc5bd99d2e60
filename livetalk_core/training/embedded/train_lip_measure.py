"""Train the mouth and eye measures: `python -m livetalk_core.training.embedded.train_lip_measure` (minutes)."""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from ...lip_sync.measure import WEIGHTS
from ...lip_sync.network import EYES, MOUTH, RegionRegressor, RegionSpec
from ...media import make_folder, write_atomic
from ..avatars.avatar import HELD_OUT_SEED
from .command_line import logger, reporting
from .lip_measure_data import FaceSet, degraded_regions, render_faces


@dataclass(frozen=True)
class LipMeasureConfig:
    """One run; the number of steps is fixed, so that a seed always gives the same weights on one machine."""

    identities: int = 3000
    mouth_steps: int = 1400
    eye_steps: int = 500
    batch: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    seed: int = 7


def train_region(spec: RegionSpec, data: FaceSet, steps: int, config: LipMeasureConfig) -> RegionRegressor:
    """Train the regressor of one region on degraded cuts of `data`."""
    torch.manual_seed(config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    network = RegionRegressor(spec)
    optimizer = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    truth = data.opening if spec is MOUTH else data.closure
    losses: list[float] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_share(step, steps)
        rows = torch.randint(len(data), (config.batch,), generator=generator)
        regions = degraded_regions(data.faces[rows], spec, generator)
        # Drawn faces lean to neither side: mirrored ones are as true.
        regions = regions.flip(-1) if step % 2 else regions
        loss = functional.smooth_l1_loss(network(regions), truth[rows], beta=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            mean = float(np.mean(losses[-100:]))
            logger.info("%s step %d of %d, loss %.4f", spec.name, step + 1, steps, mean)
    return network.eval().requires_grad_(False)


def learning_rate_share(step: int, steps: int) -> float:
    """Linear warm-up over 30 steps, then a cosine to zero."""
    return min(1.0, (step + 1) / 30) * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def save_measures(networks: dict[str, RegionRegressor], path: Path) -> None:
    """Write the weights of all regressors in half precision into one safetensors file.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        f"{name}.{key}": (value.half() if value.is_floating_point() else value).contiguous()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    write_atomic(path, save(tensors))


@torch.no_grad()
def errors_on(network: RegionRegressor, spec: RegionSpec, data: FaceSet, generator: torch.Generator | None) -> Tensor:
    """Measured minus true value of each face [N]; with a generator the faces are degraded first."""
    faces = data.faces
    regions = spec.cut(faces).float() / 255 if generator is None else degraded_regions(faces, spec, generator)
    measured: Tensor = network(regions)
    return measured - (data.opening if spec is MOUTH else data.closure)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="weight file to write")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    with reporting(options.threads):
        train_measures(options.out, LipMeasureConfig())


def train_measures(out: Path, config: LipMeasureConfig) -> None:
    """Render, train both measures, report them on held-out identities and write the weights."""
    started = time.monotonic()
    data = render_faces(config.identities, 0, config.seed)
    held_out = render_faces(100, HELD_OUT_SEED, config.seed)
    logger.info("%d faces rendered in %.0f s", len(data) + len(held_out), time.monotonic() - started)
    networks = {}
    for spec, steps in ((MOUTH, config.mouth_steps), (EYES, config.eye_steps)):
        network = networks[spec.name] = train_region(spec, data, steps, config)
        for label, generator in (("clean", None), ("degraded", torch.Generator().manual_seed(1))):
            error = errors_on(network, spec, held_out, generator)
            figures = float(error.abs().mean()), float(error.mean()), float(error.abs().max())
            message = "%s, held-out identities, %s: mean error %.4f, bias %+.4f, largest %.3f"
            logger.info(message, spec.name, label, *figures)
    make_folder(out.parent)
    save_measures(networks, out)
    logger.info("%s written after %.0f s", out, time.monotonic() - started)


if __name__ == "__main__":
    main()
