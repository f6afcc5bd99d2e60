"""Which tensor of which file fills which parameter of a meta-built module; all is checked before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DeviceError
from ..models.key_rules import Transform
from ..models.state_dict_adapter import StateDictAdapter, Targets
from .meta_module import finish, parameter_dtype, place, tie
from .model_files import checkpoint_error
from .safetensors_stream import WeightSet

_SHOWN = 5


@dataclass(frozen=True)
class AssemblyPlan:
    """Which tensor of which file fills which parameter of one module; made from headers alone.

    Attributes:
        component: What the module is, for messages.
        module: The module, its parameters on the meta device.
        weights: Where its tensors come from.
        routes: Tensor name -> the parameters it fills, and how.
        absent: Parameters no file has; they are zero.
        tied: Names of each parameter that has several, the filled one first.
        dtype: Number format of the weights; see `parameter_dtype` for the exceptions.
    """

    component: str
    module: nn.Module
    weights: WeightSet
    routes: Mapping[str, Targets]
    absent: tuple[str, ...]
    tied: Sequence[tuple[str, ...]]
    dtype: torch.dtype

    @property
    def config(self) -> Any:
        """The module's configuration."""
        return self.module.config

    @property
    def needed_bytes(self) -> int:
        """Memory the filled module takes."""
        unique = {id(value): (name, value) for name, value in self.module.state_dict(keep_vars=True).items()}
        return sum(
            value.numel() * parameter_dtype(self.module, name, value.dtype, self.dtype).itemsize
            for name, value in unique.values()
        )

    def tensors(self, device: torch.device) -> Iterator[tuple[str, Tensor]]:
        """Name and value of every parameter, one at a time, in the format of the file.

        A value may share the mapped file's memory: copy what outlives the iteration.

        Raises:
            CheckpointError: a file changed or became unreadable meanwhile.
        """
        for key, tensor in self.weights.stream(self.routes, device):
            for target, transform in self.routes[key]:
                yield target, transform(tensor)
        for name in self.absent:
            yield name, torch.zeros(self.module.get_parameter(name).shape)

    def fill(self, device: torch.device, poll: Callable[[], None] | None = None) -> nn.Module:
        """Stream the weights in; the module comes back on `device`, in evaluation mode, without gradients.

        `poll` is called before every tensor, and may end it by raising.

        Raises:
            CheckpointError: a file changed or became unreadable meanwhile.
            DeviceError: out of memory.
        """
        try:
            for name, tensor in self.tensors(device):
                if poll is not None:
                    poll()
                place(self.module, name, tensor, self.dtype, device)
            for names in self.tied:
                tie(self.module, *names)
            finish(self.module, device)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise DeviceError(
                f"{device} ran out of memory while loading the {self.component} from {self.weights.source}.",
                "Free memory, use bf16, or use a device with more memory.",
                device=str(device),
            ) from error
        return self.module


def plan_assembly(
    component: str, module: nn.Module, weights: WeightSet, adapter: StateDictAdapter, dtype: torch.dtype
) -> AssemblyPlan:
    """Match a weight file against a meta-built module, by names and shapes.

    Args:
        component: What the module is, for messages ("transformer", "VAE" ...).
        module: Built on the meta device.
        weights: Verified weight files.
        adapter: Names in the files -> names in the module.
        dtype: Number format wanted.

    Raises:
        CheckpointError: missing, unexpected, doubly given or wrongly shaped tensors.
    """
    expected: dict[str, Tensor] = module.state_dict(keep_vars=True)
    canonical = _canonical_names(expected)
    routes: dict[str, Targets] = {}
    unexpected: list[str] = []
    filled: dict[str, tuple[str, str]] = {}
    for key in _useful(weights, adapter):
        targets = adapter.targets(key)
        if not targets or any(target not in expected for target, _ in targets):
            unexpected.append(key)
            continue
        kept = [pair for pair in targets if _claims(pair[0], key, canonical, filled, weights)]
        for target, transform in kept:
            _check_shape(component, weights, key, transform, target, expected[target])
        if kept:
            routes[key] = kept
    _refuse_unexpected(component, weights, unexpected)
    missing = [name for name, first in canonical.items() if name == first and first not in filled]
    absent = tuple(name for name in missing if name in adapter.optional)
    _refuse_missing(component, weights, [name for name in missing if name not in absent])
    return AssemblyPlan(component, module, weights, routes, absent, _tied_names(canonical, filled), dtype)


def library_shapes(weights: WeightSet, adapter: StateDictAdapter) -> dict[str, tuple[int, ...]]:
    """Shapes a weight file would give a module, under the module's names; used to infer a configuration.

    Names the adapter does not know are left out here and refused by `plan_assembly`.
    """
    return {
        target: _transformed_shape(weights, key, transform)
        for key in _useful(weights, adapter)
        for target, transform in adapter.targets(key) or ()
    }


def _useful(weights: WeightSet, adapter: StateDictAdapter) -> Iterator[str]:
    return (key for key in weights if not adapter.ignored(key) and not weights.is_scale(key))


def _canonical_names(expected: Mapping[str, Tensor]) -> dict[str, str]:
    """Name -> first name of the same (tied) parameter."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(value), name) for name, value in expected.items()}


def _tied_names(
    canonical: Mapping[str, str], filled: Mapping[str, tuple[str, str]]
) -> list[tuple[str, ...]]:
    """Names of each tied parameter, the filled one first."""
    groups: dict[str, list[str]] = {}
    for name, first in canonical.items():
        groups.setdefault(first, []).append(name)
    return [
        tuple(sorted(names, key=lambda name: name != filled[first][0]))
        for first, names in groups.items()
        if len(names) > 1 and first in filled
    ]


def _claims(
    target: str,
    key: str,
    canonical: Mapping[str, str],
    filled: dict[str, tuple[str, str]],
    weights: WeightSet,
) -> bool:
    """Whether `key` is the one to fill `target`; a tied parameter stored twice is read once."""
    name = canonical[target]
    if name not in filled:
        filled[name] = (target, key)
        return True
    other_target, other_key = filled[name]
    if other_target == target:
        raise checkpoint_error(
            weights.path_of(key),
            f"{key!r} and {other_key!r} both fill {target!r}",
            "Keep one of the two spellings.",
            key=key,
        )
    return False


def _transformed_shape(weights: WeightSet, key: str, transform: Transform) -> tuple[int, ...]:
    entry = weights.entry(key)
    try:
        return tuple(transform(torch.empty(entry.shape, dtype=entry.dtype, device="meta")).shape)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise checkpoint_error(
            weights.path_of(key),
            f"{key!r} has the unusable shape {list(entry.shape)}",
            "The file belongs to another model.",
            key=key,
        ) from error


def _check_shape(
    component: str, weights: WeightSet, key: str, transform: Transform, target: str, expected: Tensor
) -> None:
    entry = weights.entry(key)
    shape = _transformed_shape(weights, key, transform)
    if shape != tuple(expected.shape):
        raise checkpoint_error(
            weights.path_of(key),
            f"{key!r} of shape {list(entry.shape)} gives {list(shape)}, the {component} has {list(expected.shape)}",
            "The file belongs to a model of another size.",
            key=key,
        )
    if expected.dtype.is_floating_point != entry.dtype.is_floating_point:
        raise checkpoint_error(
            weights.path_of(key),
            f"{key!r} holds {entry.dtype}, the {component} needs floating point numbers",
            "Quantised files other than scaled 8-bit floats are not supported.",
            key=key,
        )


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(repr(name) for name in names[:_SHOWN]) + more


def _refuse_unexpected(component: str, weights: WeightSet, names: Sequence[str]) -> None:
    if names:
        raise checkpoint_error(
            weights.path_of(names[0]),
            f"holds tensors that the {component} does not have: {_shown(names)}",
            "The file belongs to another model or another component.",
            key=names[0],
        )


def _refuse_missing(component: str, weights: WeightSet, names: Sequence[str]) -> None:
    if names:
        raise checkpoint_error(
            _one_file(weights),
            f"lacks tensors of the {component}: {_shown(names)}",
            "Complete the download, or check that the file belongs to this component.",
            key=names[0],
        )


def _one_file(weights: WeightSet) -> Path:
    return weights.files[0].path if len(weights.files) == 1 else weights.source
