"""Networks over ranks: FSDP2, number formats, activation checkpointing. One rank takes the same path."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ..recipes import RunConfig
from .ranks import Ranks

FLOAT32_PARTS = ("time_embedding", "time_projection", "head")
"""Parts of the transformer whose weights stay float32 in bf16 runs, as at inference."""


def shard_network(network: nn.Module, ranks: Ranks, config: RunConfig, *, trained: bool) -> None:
    """Spread a denoiser's weights over the ranks, in place.

    Args:
        network: A module with a `transformer` of blocks; on the CPU or on the rank's device.
        ranks: Of the run.
        config: Precision, offload, activation checkpointing.
        trained: Whether it has gradients; a frozen one is kept in the run's precision and never offloaded.
    """
    transformer: Any = network.transformer
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    if not trained:
        # Frozen weights need no float32 copy; the parts named above keep theirs.
        _cast_frozen(transformer, dtype)
    network.requires_grad_(trained)
    outside = trained and config.offload
    offload = CPUOffloadPolicy(pin_memory=ranks.device.type == "cuda") if outside else OffloadPolicy()
    low = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    full = MixedPrecisionPolicy(param_dtype=torch.float32, reduce_dtype=torch.float32, cast_forward_inputs=False)
    if not outside and not any(parameter.is_meta for parameter in network.parameters()):
        network.to(ranks.device)
    for name in FLOAT32_PARTS:
        fully_shard(getattr(transformer, name), mesh=ranks.mesh, mp_policy=full, offload_policy=offload)
    for block in transformer.blocks:
        fully_shard(block, mesh=ranks.mesh, mp_policy=low, offload_policy=offload)
    # By default a root stays gathered after its forward pass, and whoever asks for parameters then gets the wrong ones.
    fully_shard(network, mesh=ranks.mesh, mp_policy=low, offload_policy=offload, reshard_after_forward=True)
    # Nobody here writes into a network's result.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    if trained and config.checkpoint_activations:
        transformer.enable_gradient_checkpointing()


def fill_network(network: nn.Module, weights: Iterable[tuple[str, Tensor]], device: torch.device) -> None:
    """Give a sharded network on the meta device memory and these weights; every rank keeps its own rows.

    Args:
        network: Sharded.
        weights: Parameter name -> whole value, in any number format, one at a time.
        device: Where the rank's part lies.
    """
    network.to_empty(device=device)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in weights:
            parameter = parameters.pop(name)
            mine = local(parameter)
            first = first_row(parameter)
            mine.copy_(value[first : first + len(mine)] if mine.ndim else value)
    assert not parameters, f"no weights for {sorted(parameters)[:3]}"


def first_row(tensor: Tensor) -> int:
    """Number of the first row of the whole tensor that this rank holds."""
    if not isinstance(tensor, DTensor):
        return 0
    mesh = tensor.device_mesh
    # FSDP2 gives every rank ceil(n / world) rows, fewer or none to the last.
    each = -(-tensor.shape[0] // mesh.size())
    return min(mesh.get_local_rank() * each, tensor.shape[0])


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered on every rank (all ranks must call this), any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, any other as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _cast_frozen(transformer: Any, dtype: torch.dtype) -> None:
    for name, child in transformer.named_children():
        if name not in FLOAT32_PARTS:
            child.to(dtype)
