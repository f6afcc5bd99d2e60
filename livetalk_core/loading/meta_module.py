"""Modules built on the meta device, where they cost no memory, and how values get into them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from .model_files import checkpoint_error


def build_on_meta(component: str, source: Path, build: Callable[[], Any]) -> Any:
    """Run a constructor on the meta device, where it costs no memory.

    Raises:
        CheckpointError: the configuration does not describe a model.
    """
    try:
        with torch.device("meta"):
            return build()
    except ConfigError as error:
        raise checkpoint_error(source, f"does not describe a {component} ({error.message})", error.hint) from error
    except Exception as error:  # A bad configuration can fail anywhere in a library's constructor.
        raise checkpoint_error(
            source,
            f"does not describe a {component} ({error})",
            "Use the configuration that belongs to the weights.",
        ) from error


def parameter_dtype(module: nn.Module, name: str, stored: torch.dtype, dtype: torch.dtype) -> torch.dtype:
    """Number format of one parameter: `dtype`, or float32 where its class asks for it; integers stay."""
    if not stored.is_floating_point:
        return stored
    keep: Sequence[str] = getattr(module, "_keep_in_fp32_modules", None) or ()
    # diffusers keeps them in every format; transformers only where float16 could overflow.
    applies = dtype is torch.float16 or _is_diffusers(module)
    return torch.float32 if applies and any(part in keep for part in name.split(".")) else dtype


def place(module: nn.Module, name: str, value: Tensor, dtype: torch.dtype, device: torch.device) -> None:
    """Put `value` in the place of the parameter or buffer `name`, in its own memory on `device`."""
    parent_name, _, leaf = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    target_dtype = parameter_dtype(module, name, getattr(parent, leaf).dtype, dtype)
    if device.type != "cpu" and value.dtype == target_dtype and _owns_storage(value):
        own = value
    else:
        # On the CPU `value` lies in the mapped file, which must be let go.
        own = torch.empty(value.shape, dtype=target_dtype, device=device)
        own.copy_(value)
    if leaf in parent._parameters:
        parent._parameters[leaf] = nn.Parameter(own, requires_grad=False)
    else:
        parent._buffers[leaf] = own


def tie(module: nn.Module, name: str, *others: str) -> None:
    """Let the other names show the parameter that is now in the place of `name`."""
    parameter = module.get_parameter(name)
    for other in others:
        parent, _, leaf = other.rpartition(".")
        module.get_submodule(parent)._parameters[leaf] = parameter


def finish(module: nn.Module, device: torch.device) -> None:
    """Rebuild buffers that no file holds, switch to evaluation without gradients."""
    for name, buffer in list(module.named_buffers()):
        parent_name, _, leaf = name.rpartition(".")
        if leaf == "position_ids" and buffer.is_meta:
            ids = torch.arange(buffer.shape[-1], device=device).expand(buffer.shape)
            module.get_submodule(parent_name)._buffers[leaf] = ids
        elif buffer.is_meta:
            raise CheckpointError(
                f"{type(module).__name__}: buffer {name!r} cannot be rebuilt.",
                "This version of its library is not supported; see `livetalk doctor`.",
                key=name,
            )
    module.requires_grad_(False).to(device).eval()


def _is_diffusers(module: nn.Module) -> bool:
    return any(cls.__module__.startswith("diffusers.") for cls in type(module).__mro__)


def _owns_storage(tensor: Tensor) -> bool:
    return tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
