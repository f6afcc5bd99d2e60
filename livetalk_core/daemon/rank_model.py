"""What a rank computes with: the others of its world, and the model spread over them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import msgspec

from ..config import ChunkGeometry
from ..engine.compilation import compile_model, require_compiler
from ..errors import ConfigError
from ..loading import Replacements, load_model, load_vae
from ..models.attention import AttentionFunction, attention_function, sdpa
from ..models.bundle import ModelBundle
from ..models.vae import WanVideoVAE
from ..parallel.apply import parallelise
from ..parallel.backends import Backend
from ..parallel.groups import Groups, open_groups
from ..parallel.plan import ParallelPlan, make_plan, plan_tokens
from ..parallel.vae import ParallelVAE
from .daemon_config import RankOptions, WorkerConfig
from .messages import ModelInfo
from .rank_device import memory_reported, rank_device, set_threads

_FILE = ".safetensors"


@dataclass(frozen=True)
class RankModel:
    """One rank's part of a model, or of a VAE alone.

    Attributes:
        groups: The world.
        vae: Decodes and encodes with all ranks.
        bundle: The whole model; None where only a VAE was loaded.
        info: What the supervisor is told.
    """

    groups: Groups
    vae: WanVideoVAE
    bundle: ModelBundle | None
    info: ModelInfo


def meet_ranks(config: WorkerConfig) -> AbstractContextManager[Groups]:
    """The world of the ranks on this host.

    Raises:
        DeviceError: see `rank_device`; before the others are met.
    """
    device = rank_device(config.device, config.rank, config.world_size)
    return open_groups(config.rank, config.world_size, Path(config.rendezvous), device, timeout=config.patience)


def load_rank_model(config: WorkerConfig, groups: Groups) -> RankModel:
    """Load the model and become one part of it; collective.

    Raises:
        ConfigError, CheckpointError, DeviceError: the same on every rank.
    """
    options = RankOptions.read(config.options)
    set_threads(options.threads, config.world_size if config.hosts is None else config.hosts.ranks_per_node)
    with memory_reported(groups.device):
        if config.model is not None and config.model.endswith(_FILE):
            return _load_vae(config, groups)
        return _load_model(config, options, groups)


def require_plan(groups: Groups, bundle: ModelBundle, geometry: ChunkGeometry, size: tuple[int, int]) -> None:
    """Refuse a stream whose chunks have fewer tokens than there are ranks.

    Args:
        groups: The world.
        bundle: The model.
        geometry, size: The stream's chunks, and its width and height.

    Raises:
        ConfigError: with the equation.
    """
    _plan(RankOptions(), groups, bundle, geometry, size)


def _load_vae(config: WorkerConfig, groups: Groups) -> RankModel:
    assert config.model is not None
    vae, revision = load_vae(config.model, groups.device, config.dtype)
    dtype = str(vae.dtype).removeprefix("torch.")
    info = ModelInfo(Path(config.model).stem[:200], revision, str(groups.device), dtype, kind="vae")
    return RankModel(groups, vae if groups.alone else ParallelVAE(vae, groups), None, info)


def _load_model(config: WorkerConfig, options: RankOptions, groups: Groups) -> RankModel:
    if config.compile:
        require_compiler(groups.device)
    backend, kernel = _attention(config.attention)
    files = {name: getattr(options, name) for name in Replacements.__dataclass_fields__}
    replacements = Replacements(**{name: Path(value) for name, value in files.items() if value})
    whole = load_model(config.model, groups.device, config.dtype, offload=options.offload, replacements=replacements)
    defaults = whole.defaults
    plan = _plan(options, groups, whole, defaults.geometry, (defaults.width, defaults.height))
    bundle = parallelise(whole, plan, groups, backend, kernel)
    if config.compile:
        compile_model(bundle)
    info = ModelInfo(
        bundle.name[:200], bundle.revision, str(bundle.device), str(bundle.dtype).removeprefix("torch."),
        msgspec.json.encode(defaults).decode(),
    )  # fmt: skip
    return RankModel(groups, bundle.vae, bundle, info)


def _plan(
    options: RankOptions, groups: Groups, bundle: ModelBundle, geometry: ChunkGeometry, size: tuple[int, int]
) -> ParallelPlan:
    width, height = (side // geometry.spatial_stride for side in size)
    model = bundle.transformer.config
    tokens = plan_tokens(geometry.latent_frames, (height, width), tuple(model.patch_size))
    return make_plan(
        groups.world, model.num_heads, tokens, (height, width), ulysses=options.ulysses, ring=options.ring
    )


def _attention(name: str) -> tuple[Backend, AttentionFunction]:
    """How the sequence is spread, and the kernel of one rank."""
    if name in get_args(Backend):
        return cast(Backend, name), sdpa
    try:
        return "torch", attention_function(name)
    except ConfigError as error:
        error.hint = f"{', '.join(get_args(Backend))}; {error.hint}"
        raise
