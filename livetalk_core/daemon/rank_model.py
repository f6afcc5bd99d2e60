"""What a rank computes with: its device, its threads, the others of its world, and the model spread over them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import msgspec
import torch

from ..config import ChunkGeometry
from ..engine.compilation import compile_model, require_compiler
from ..errors import ConfigError, DeviceError, OutOfMemoryError
from ..loading import Replacements, load_model, load_vae
from ..loading.placement import available_devices, memory_of
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

_FILE = ".safetensors"
_ASKED_FOR = (re.compile(r"[Tt]ried to allocate ([\d.]+) (bytes|KiB|MiB|GiB)"), re.compile(r"allocate (\d+) (bytes)"))
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


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
    _set_threads(options, config.world_size if config.hosts is None else config.hosts.ranks_per_node)
    with memory_reported(groups.device):
        if config.model is not None and config.model.endswith(_FILE):
            return _load_vae(config, groups)
        return _load_model(config, options, groups)


def rank_device(setting: str, rank: int, world: int) -> str:
    """The device of a rank.

    Args:
        setting: See `DaemonConfig`.
        rank, world: This rank, and how many there are on this machine.

    Raises:
        DeviceError: fewer devices than ranks, or devices of different kinds; on every rank alike.
    """
    names = [name.strip() for name in setting.split(",")]
    if len(names) == 1 and names[0] in ("auto", "cuda"):
        if names[0] == "auto" and not torch.cuda.is_available():
            return "cpu"
        names = [f"cuda:{number}" for number in range(world)]
    elif names == ["cpu"]:
        return "cpu"
    if len(names) != world or len(set(names)) != world:
        raise DeviceError(
            f"{world} ranks were asked for on {setting}.", "Name one device for each rank, or use auto.",
            setting="device",
        )  # fmt: skip
    here = available_devices()
    if missing := [name for name in names if name not in here]:
        raise DeviceError(
            f"{world} ranks need {', '.join(names)}; there is no {', '.join(missing)}.",
            f"Available: {', '.join(here)}. Start at most as many ranks as there are GPUs.", setting="device",
        )  # fmt: skip
    cards = {torch.cuda.get_device_name(name) for name in names if name.startswith("cuda")}
    if len(cards) > 1:
        raise DeviceError(
            f"The ranks would run on different cards: {', '.join(sorted(cards))}.",
            "Ranks compare their results bit for bit; name devices of one kind.", setting="device",
        )  # fmt: skip
    return names[rank]


@contextmanager
def memory_reported(device: torch.device) -> Iterator[None]:
    """Turn the library's errors about memory into ours, with what was needed and what is free.

    Raises:
        OutOfMemoryError: in place of them.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in text:
            raise
        if device.type == "cuda":
            torch.cuda.empty_cache()
        needed, memory = _asked_for(text), memory_of(device)
        free = None if memory is None else memory[0]
        facts = [f"{_gib(value)} {what}" for value, what in ((needed, "needed"), (free, "free")) if value is not None]
        raise OutOfMemoryError(
            f"{device} ran out of memory: {', '.join(facts) or 'nothing more is known'}.",
            "Use smaller pictures, bf16, more ranks or a device with more memory, or end what else uses it.",
            needed=needed, free=free, device=str(device),
        ) from error  # fmt: skip


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
    whole = load_model(config.model, groups.device, config.dtype, replacements=replacements)
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


def _set_threads(options: RankOptions, world: int) -> None:
    """Ranks on one machine share its cores; one rank alone keeps torch's own choice."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    elif world > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world))


def _asked_for(text: str) -> int | None:
    found = next((match for pattern in _ASKED_FOR if (match := pattern.search(text))), None)
    return None if found is None else int(float(found[1]) * _UNITS[found[2]])


def _gib(value: int) -> str:
    return f"{value / 2**30:.2f} GiB"
