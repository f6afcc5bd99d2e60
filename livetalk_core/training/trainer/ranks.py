"""The ranks of a run: who is here, on which device, and what they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from ...errors import DeviceError, MissingDependencyError, ParallelError
from ...loading.placement import resolve_device

# torch.distributed.nn is imported before there is a world, see `parallel.groups`.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Ranks:
    """This rank's place among all ranks; a single process is a world of one."""

    rank: int
    world: int
    device: torch.device
    mesh: DeviceMesh

    @property
    def first(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over ranks of a small tensor."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.world
        return values

    def all_ok(self, ok: bool) -> bool:
        """Whether all ranks say so; also a meeting point."""
        flag = torch.tensor([1.0 if ok else 0.0], device=self.device)
        return bool(self.mean(flag) == 1.0)


@contextmanager
def join_ranks(device: str = "auto") -> Iterator[Ranks]:
    """Take part in the world that torchrun started, or in one of a single process.

    Args:
        device: "cpu", "cuda" or "auto".

    Raises:
        DeviceError: another device, or one that is not here.
        MissingDependencyError: a torch that cannot shard on a CPU.
        ParallelError: the ranks do not find each other.
    """
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if device not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"Training cannot run on {device!r}.", "Give auto, cpu or cuda; each rank takes its own GPU.")
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cpu" and not hasattr(torch.cpu.Stream, "record_event"):
        raise MissingDependencyError(
            f"torch {torch.__version__} cannot train on a CPU: its FSDP2 needs a GPU.", "Install a newer torch."
        )
    # Offloaded weights lie on the host: their norms are summed over gloo.
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    here = resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if kind == "cuda" else "cpu")
    if kind == "cuda":
        torch.cuda.set_device(here)
    ours = not dist.is_initialized()
    try:
        if ours and world == 1:
            store = dist.HashStore()  # type: ignore[attr-defined, unused-ignore]
            dist.init_process_group(backend, store=store, rank=0, world_size=1, timeout=_TIMEOUT)
        elif ours:
            dist.init_process_group(backend, timeout=_TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise ParallelError(
            f"Rank {rank} of {world} cannot join the others ({error}).", "Start all ranks with torchrun."
        ) from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), here, init_device_mesh(kind, (dist.get_world_size(),)))
    finally:
        if ours:
            dist.destroy_process_group()
