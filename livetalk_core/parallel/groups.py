"""Process groups of one world: gloo on CPUs, NCCL on GPUs, sockets between CPUs of one host; one code above them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional
from torch import Tensor

from ..errors import ConfigError, DeviceError, ParallelError
from .local_links import LocalLinks, open_links

DEFAULT_TIMEOUT = 120.0
"""Seconds that one rank waits for another within a collective."""

_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


# torch.distributed.nn is imported above because it has the world's group for default arguments: imported while there is
# one (diffusers does), it keeps that group, whose threads would let go of tensors in a dying interpreter and abort it.

# torch 2.13 renamed it.
_ALL_GATHER: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


@dataclass(frozen=True)
class Groups:
    """One rank's view of its world.

    Attributes:
        rank, world: This rank and the number of ranks.
        device: Where this rank computes.
        links: The way to the other ranks of this host, where that is shorter than the back end's.
    """

    rank: int
    world: int
    device: torch.device
    links: LocalLinks | None = field(default=None, repr=False, compare=False)

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to: then nothing is sent and no process group is needed."""
        return self.world == 1

    def exchange(self, sends: Mapping[int, Tensor], receives: Mapping[int, Tensor]) -> PendingExchange:
        """Start sending contiguous tensors to ranks and receiving contiguous ones from ranks.

        At most one tensor per rank and direction; every rank must take part in matching exchanges in the same
        order. Buffers may be touched again after `PendingExchange.wait`.
        """
        if self.links is not None:
            return PendingExchange(self.links.exchange(_memory(sends), _memory(receives)))
        operations = [dist.P2POp(dist.isend, as_bytes(tensor), rank) for rank, tensor in sends.items()]
        operations += [dist.P2POp(dist.irecv, as_bytes(tensor), rank) for rank, tensor in receives.items()]
        with reported("exchange", self.rank):
            works = dist.batch_isend_irecv(operations) if operations else []

        def finish() -> None:
            with reported("exchange", self.rank):
                for work in works:
                    work.wait()

        return PendingExchange(finish, (*sends.values(), *receives.values()))

    def all_gather(self, local: Tensor) -> Tensor:
        """Every rank's tensor of one shape [...] -> [world, ...]."""
        local = local.contiguous()
        if self.alone:
            return local.unsqueeze(0)
        gathered = local.new_empty((self.world, *local.shape))
        if self.links is not None:
            gathered[self.rank] = local
            others = [rank for rank in range(self.world) if rank != self.rank]
            self.exchange(dict.fromkeys(others, local), {rank: gathered[rank] for rank in others}).wait()
            return gathered
        with reported("all_gather", self.rank):
            _ALL_GATHER(as_bytes(gathered), as_bytes(local))
        return gathered

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Overwrite a contiguous tensor with the source rank's; the same shape and dtype on every rank."""
        if self.alone:
            return tensor
        with reported("broadcast", self.rank):
            dist.broadcast(as_bytes(tensor), source)
        return tensor

    def barrier(self) -> None:
        """Wait for every rank."""
        self.all_gather(torch.zeros(1, dtype=torch.int64, device=self.device))


@dataclass(frozen=True)
class PendingExchange:
    """Messages on their way."""

    finish: Callable[[], None]
    # A GPU still reads what is on its way: its memory must not go to something else before `wait`.
    buffers: tuple[Tensor, ...] = ()

    def wait(self) -> None:
        """Until all have been sent and received.

        Raises:
            ParallelError: another rank is gone or too late.
        """
        self.finish()


@contextmanager
def open_groups(
    rank: int,
    world: int,
    rendezvous: Path | None,
    device: torch.device | str = "cpu",
    timeout: float = DEFAULT_TIMEOUT,
) -> Iterator[Groups]:
    """Join the world of this process, and leave it in the end; a world of one rank is there without a meeting.

    Args:
        rank, world: This rank, and how many there are.
        rendezvous: A file in a private folder that the ranks of this host meet in; None under `torchrun`,
            whose environment says where to meet.
        device: Where this rank computes: "cpu", or "cuda:N".
        timeout: Seconds that one rank waits for another.

    Raises:
        ConfigError: a rank outside the world.
        DeviceError: more ranks than devices.
        ParallelError: the others did not come in time.
    """
    target = _checked_device(rank, world, torch.device(device))
    if world == 1:
        yield Groups(rank, world, target)
        return
    store = None
    if rendezvous is not None:
        # Ranks of one host talk over the loopback device only; torch reads its name from here.
        bind_to(_LOOPBACK)
        store = dist.FileStore(str(rendezvous), world)  # type: ignore[attr-defined]
    # Small int64 messages stay on the CPU, whatever the device.
    backend = "cpu:gloo,cuda:nccl" if target.type == "cuda" else "gloo"
    with reported("rendezvous", rank):
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout))
    try:
        groups = Groups(rank, world, target)
        # NCCL wants every rank in the first collective, and an error is best found before loading.
        groups.barrier()
        if rendezvous is None or target.type != "cpu":
            yield groups
            return

        def agree(flag: bool) -> bool:
            return bool(groups.all_gather(torch.tensor([flag])).all())

        with open_links(rendezvous, rank, world, timeout, agree) as links:
            yield replace(groups, links=links)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def bind_to(interface: str) -> None:
    """Keep the traffic between ranks on one network device; to be called before they meet."""
    os.environ["GLOO_SOCKET_IFNAME"] = interface
    # NCCL would take every device whose name begins so.
    os.environ["NCCL_SOCKET_IFNAME"] = f"={interface}"


def _checked_device(rank: int, world: int, device: torch.device) -> torch.device:
    if not 0 <= rank < world:
        raise ConfigError(f"Rank {rank} is not in 0..{world - 1}.", setting="rank")
    if device.type == "cuda":
        index = rank if device.index is None else device.index
        count = torch.cuda.device_count()
        if index >= count:
            raise DeviceError(
                f"Rank {rank} of {world} wants cuda:{index}, this machine has {count} GPUs.",
                "Start at most as many ranks as there are GPUs.", rank=rank,
            )  # fmt: skip
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    return device


def as_bytes(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor as bytes: not every back end knows every number format."""
    return tensor.view(-1).view(torch.uint8)


def _memory(tensors: Mapping[int, Tensor]) -> dict[int, memoryview]:
    """The memory of contiguous tensors on the CPU."""
    return {rank: as_bytes(tensor.detach()).numpy().data for rank, tensor in tensors.items()}


@contextmanager
def reported(what: str, rank: int) -> Iterator[None]:
    """Turn the back end's errors into ParallelError, naming the operation and this rank."""
    try:
        yield
    except RuntimeError as error:
        raise ParallelError(
            f"Rank {rank} lost its peers in {what} ({str(error).splitlines()[0][:200]}).",
            "One of the processes ended or hangs; see its log.", rank=rank, operation=what,
        ) from error  # fmt: skip
