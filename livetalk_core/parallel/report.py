"""A plan with its price, as `livetalk plan` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import ChunkGeometry
from ..errors import DeviceError
from ..loading.manifest import PUBLISHED_DEFAULTS, read_model_config
from ..models.bundle import ModelDefaults
from .cost import UTILISATION, ChunkCost, Prediction, chunk_cost, predict, require_fits
from .gpus import Gpu, find_gpu
from .model_shape import ModelShape, TransformerShape, VAEShape
from .plan import ParallelPlan, make_plan, plan_tokens

PUBLISHED = "14b"


@dataclass(frozen=True)
class PlanRequest:
    """What to plan.

    Attributes:
        world: Number of ranks.
        model: "14b" for the published dimensions, or a model folder; None for the embedded model.
        size: Width and height in pixels; None for the model's own.
        gpu: Name of the card, or None for no prediction.
        ulysses, ring: Degrees; None for the best.
        steps: Transformer steps; None for the model's own.
        number_bytes: Bytes per weight and activation.
    """

    world: int
    model: str | None = PUBLISHED
    size: tuple[int, int] | None = None
    gpu: str | None = None
    ulysses: int | None = None
    ring: int | None = None
    steps: int | None = None
    number_bytes: int = 2


@dataclass(frozen=True)
class PlanReport:
    """Who computes what and what it costs; the prediction only for a named card."""

    shape: ModelShape
    size: tuple[int, int]
    geometry: ChunkGeometry
    plan: ParallelPlan
    cost: ChunkCost
    gpu: Gpu | None
    prediction: Prediction | None
    too_large: str

    @property
    def chunk_seconds(self) -> float:
        """How long a chunk's new frames are shown."""
        return self.geometry.slice_frames / self.geometry.fps

    def plain(self) -> dict[str, Any]:
        """The report as JSON values."""
        plan, cost = self.plan, self.cost
        return {
            "model": self.shape.name,
            "size": list(self.size),
            "world": plan.world,
            "ulysses": plan.ulysses,
            "ring": plan.ring,
            "tokens": plan.tokens,
            "grid": [list(plan.grid.heights), list(plan.grid.widths)],
            "ranks": [_rank_facts(plan, rank) for rank in range(plan.world)],
            "flops": {
                "step": cost.step_flops,
                "steps": cost.steps,
                "decode": cost.decode.flops,
                "encode": cost.encode.flops,
            },
            "bytes_sent_per_rank": {
                "ulysses_step": cost.ulysses_bytes,
                "ring_step": cost.ring_bytes,
                "gather_step": cost.gather_bytes,
                "decode": cost.decode.sent,
                "encode": cost.encode.sent,
            },
            "memory_per_rank": {"weights": cost.weight_bytes, "total": cost.memory_bytes},
            "chunk_seconds": self.chunk_seconds,
            "gpu": self.gpu.name if self.gpu else None,
            "prediction": None if self.prediction is None else _prediction_facts(self.prediction),
            "too_large": self.too_large or None,
        }


def _rank_facts(plan: ParallelPlan, rank: int) -> dict[str, Any]:
    start, stop = plan.token_range(rank)
    tile = plan.grid.tile(rank)
    return {
        "rank": rank,
        "tokens": [start, stop],
        "padding": plan.tokens_per_rank - (stop - start),
        "tile": None if tile is None else [tile.top, tile.bottom, tile.left, tile.right],
    }


def _prediction_facts(prediction: Prediction) -> dict[str, float]:
    return {
        "transformer": prediction.transformer,
        "vae": prediction.vae,
        "links": prediction.links,
        "roofline": prediction.roofline,
        "expected": prediction.expected,
        "utilisation": UTILISATION,
    }


def plan_report(request: PlanRequest) -> PlanReport:
    """Plan a chunk and price it.

    Raises:
        ConfigError: a size, world or degree that cannot be, with the equation; an unknown card.
        CheckpointError: no such model folder.
    """
    shape, defaults = _shape_and_defaults(request.model)
    width, height = request.size or (defaults.width, defaults.height)
    # Checks size and steps as the engine does.
    stream = defaults.stream(steps=request.steps, width=width, height=height)
    geometry, steps = stream.geometry, stream.sampler.steps
    latent_hw = (height // geometry.spatial_stride, width // geometry.spatial_stride)
    tokens = plan_tokens(geometry.latent_frames, latent_hw, shape.transformer.patch)
    plan = make_plan(
        request.world, shape.transformer.heads, tokens, latent_hw, ulysses=request.ulysses, ring=request.ring
    )
    cost = chunk_cost(plan, shape, geometry.latent_frames, geometry.motion_latents, steps, request.number_bytes)
    gpu = None if request.gpu is None else find_gpu(request.gpu)
    too_large = ""
    if gpu is not None:
        try:
            require_fits(cost, gpu)
        except DeviceError as error:
            too_large = error.message
    prediction = None if gpu is None else predict(plan, cost, gpu)
    return PlanReport(shape, (width, height), geometry, plan, cost, gpu, prediction, too_large)


def _shape_and_defaults(model: str | None) -> tuple[ModelShape, ModelDefaults]:
    """Dimensions of a model, and the settings it was trained for."""
    if model == PUBLISHED:
        return ModelShape(), PUBLISHED_DEFAULTS
    # Late: the published dimensions need no model library.
    from ..loading.describe import manifest_of
    from ..loading.layout import find_model

    files = find_model(model)
    assert files.transformer.config is not None
    image_tokens, vae = TransformerShape().image_tokens, VAEShape()
    if files.image_encoder.config is not None:
        image = read_model_config(files.image_encoder.config)
        image_tokens = 1 + (int(image.get("image_size", 224)) // int(image.get("patch_size", 14))) ** 2
    if files.vae.config is not None:
        vae = VAEShape.from_config(read_model_config(files.vae.config))
    others = [files.image_encoder, files.audio_encoder, files.vae, files.text_encoder]
    manifest = manifest_of(files)
    shape = ModelShape(
        name=manifest.name,
        transformer=TransformerShape.from_config(read_model_config(files.transformer.config), image_tokens),
        vae=vae,
        weights_elsewhere=sum(_file_bytes(part.weights) for part in others if part is not None),
        text_weights=0 if files.text_encoder is None else _file_bytes(files.text_encoder.weights),
    )
    return shape, manifest.defaults


def _file_bytes(paths: tuple[Path, ...]) -> int:
    return sum(path.stat().st_size for path in paths)
