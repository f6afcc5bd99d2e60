"""A run from recipe, model folder and prepared data: put together, trained, exported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..config import SamplerConfig
from ..errors import TrainingError
from ..loading import ModelParts, open_parts
from ..models.vae import WanVideoVAE
from .data.batches import PreparedBatches
from .data.prepared import PreparedSet
from .export import PREFIX, export_model, trained_network
from .methods.denoiser import Denoiser
from .methods.rollout import Rollout
from .methods.samples import SampleVideos
from .methods.stage1 import Stage1
from .methods.stage2 import Stage2
from .recipes import RolloutConfig, Stage2Config, TrainingRecipe
from .trainer.checkpoint import has_checkpoint, newest_checkpoint
from .trainer.loop import Observer, Trainer
from .trainer.method import Method
from .trainer.ranks import Ranks

CHECKPOINTS = "checkpoints"
_PREVIEW_STEPS = 20


@dataclass(frozen=True)
class RunRequest:
    """What to run.

    Attributes:
        recipe: Stage and settings.
        model: Model folder that gives the first weights and the encoders; None: the embedded model.
        data: Folder of prepared data.
        out: Folder of the run.
        resume: Continue what the folder holds.
        teacher: Model folder of the teacher where it is not `model`.
    """

    recipe: TrainingRecipe
    model: Path | None
    data: Path
    out: Path
    resume: bool = False
    teacher: Path | None = None


def run_training(request: RunRequest, ranks: Ranks, observe: Observer | None = None) -> Path:
    """Train to the end of the recipe.

    Returns:
        The newest checkpoint.

    Raises:
        TrainingError: data that do not fit the model, a folder that holds another run, a loss that is no number.
        CheckpointError: a model folder that cannot be used.
        OutputError: the disk is full.
    """
    trainer = build_trainer(request, ranks, observe)
    checkpoints = request.out / CHECKPOINTS
    if request.resume:
        trainer.resume()
    elif has_checkpoint(checkpoints):
        raise TrainingError(f"{request.out} holds a run already.", "Add --resume, or choose another folder.")
    trainer.run()
    return newest_checkpoint(checkpoints)


def build_trainer(request: RunRequest, ranks: Ranks, observe: Observer | None = None) -> Trainer:
    """Everything of a run, its networks sharded and filled; nothing is trained yet."""
    recipe = request.recipe
    half = recipe.run.precision == "bf16" and ranks.device.type == "cuda"
    parts = open_parts(request.model, torch.bfloat16 if half else torch.float32)
    data = PreparedSet(request.data)
    if data.index.encoders != parts.encoders:
        raise TrainingError(
            f"{request.data} was prepared with other encoders than those of {parts.name}.",
            "Prepare the data with this model, or train the model that they were prepared with.",
        )
    vae = parts.vae(ranks.device)
    teacher = parts if request.teacher is None else open_parts(request.teacher)
    if teacher.encoders != parts.encoders:
        raise TrainingError(
            f"The teacher {teacher.name} has other encoders than {parts.name}: it would judge another latent space.",
            "Give a teacher that was trained from the same model.",
        )
    method, rollout, speaker = _method(recipe, parts, teacher, vae, data)
    samples = SampleVideos(speaker, rollout, data, request.out / "samples", ranks)
    identity = {"model": parts.name, "encoders": parts.encoders, "data": data.describe()}
    if isinstance(recipe.method, Stage2Config):
        # Not in the checkpoint: what another one wants must not be learnt half way.
        identity["teacher"] = teacher.describe()
    return Trainer(
        method, PreparedBatches(data, ranks.device), recipe, request.out, ranks,
        identity=identity, observe=observe, sample=samples,
    )  # fmt: skip


def _method(
    recipe: TrainingRecipe, parts: ModelParts, teacher: ModelParts, vae: WanVideoVAE, data: PreparedSet
) -> tuple[Method, Rollout, Denoiser]:
    """The method, how its network rolls out in sample videos, and that network."""
    config, geometry = recipe.method, data.geometry
    if isinstance(config, Stage2Config):
        student, fake_score, judge = (Denoiser(each.transformer()) for each in (parts, parts, teacher))
        method = Stage2(
            student, fake_score, judge, vae, geometry, config, recipe.run.seed,
            weights=lambda: _weights(parts), teacher_weights=lambda: _weights(teacher),
        )  # fmt: skip
        return method, method.rollout, student
    denoiser = Denoiser(parts.transformer())
    preview = RolloutConfig(sampler=SamplerConfig(steps=_PREVIEW_STEPS, shift=config.shift))
    weights = partial(_fresh_weights, parts, recipe.run.seed) if config.fresh else partial(_weights, parts)
    stage1 = Stage1(denoiser, config, geometry.motion_latents, weights)
    return stage1, Rollout(vae, geometry, preview), denoiser


def _weights(parts: ModelParts) -> Iterator[tuple[str, Tensor]]:
    return ((PREFIX + name, tensor) for name, tensor in parts.plan.tensors(torch.device("cpu")))


def _fresh_weights(parts: ModelParts, seed: int) -> Iterator[tuple[str, Tensor]]:
    transformer = parts.transformer().to_empty(device="cpu")
    transformer.init_weights(seed)
    return ((PREFIX + name, parameter.detach()) for name, parameter in transformer.named_parameters())


def export_run(run: Path, model: Path | None, folder: Path) -> str:
    """Write the model of a run's newest checkpoint; see `export_model`. Returns the name of the network.

    Raises:
        TrainingError: the folder holds no checkpoint.
        OutputError: the model cannot be written.
    """
    checkpoint = newest_checkpoint(run / CHECKPOINTS)
    network = trained_network(checkpoint)
    export_model(checkpoint, network, open_parts(model), folder)
    return network
