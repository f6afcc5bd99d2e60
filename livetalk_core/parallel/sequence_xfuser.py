"""The xfuser backend of the sequence split: its process groups and its long-context attention layer."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..errors import MissingDependencyError
from .groups import Groups
from .plan import block_lengths
from .sequence import SequenceParallel


class XFuserSequence(SequenceParallel):
    """`SequenceParallel` whose exchange between ranks is xfuser's.

    xfuser's own ring serves where it can be imported and every rank has the same number of real tokens, because it
    cannot leave padding out; else this package's ring runs inside xfuser's layer. That covers the released yunchang
    packages, which lack a name that xfuser 0.5 to 0.7 import for their ring. xfuser keeps one
    set of groups per process: a new object replaces the one before, which must not be used any more.

    Args:
        groups: The world; making the object is collective.
        ulysses, ring: Degrees.

    Raises:
        MissingDependencyError: xfuser is not installed, or not usable here.
    """

    def __init__(self, groups: Groups, ulysses: int, ring: int) -> None:
        layer_class = xfuser_layer()
        super().__init__(groups, ulysses, ring)
        _initialise_xfuser(groups, ulysses, ring)
        self._xfuser_ring, attention_kind = _own_ring()
        self._running_length = 0
        self._layer = _make_layer(layer_class, self._inner, attention_kind)

    def run(self, query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
        """Self attention of the local tokens by xfuser's layer."""
        self._running_length = length
        result: Tensor = self._layer(None, query=query, key=key, value=value)
        return result

    def _inner(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        """What xfuser's layer calls for the tokens of one block ``[B, U*c, N/U, D]``."""
        lengths = block_lengths(self._running_length, self.ulysses, self.ring)
        if self._xfuser_ring is None or any(length != key.shape[1] for length in lengths):
            return self._ring(query, key, value, self._running_length)
        result = self._xfuser_ring(query, key, value, **options)
        out: Tensor = result[0] if isinstance(result, tuple) else result
        return out


def xfuser_layer() -> Any:
    """`xFuserLongContextAttention`; MissingDependencyError if it cannot be had."""
    if importlib.util.find_spec("xfuser") is None:
        raise MissingDependencyError("xfuser is not installed.", "pip install xfuser, or use the torch backend.")
    try:
        return importlib.import_module("xfuser.core.long_ctx_attention").xFuserLongContextAttention
    except Exception as error:  # its import fails in many ways: missing CUDA, triton, other packages' names
        raise MissingDependencyError(
            f"xfuser cannot be imported here ({type(error).__name__}: {str(error)[:200]}).", "Use the torch backend."
        ) from error


def _initialise_xfuser(groups: Groups, ulysses: int, ring: int) -> None:
    """Let xfuser make its groups over the world that is already there."""
    distributed = importlib.import_module("xfuser.core.distributed")
    local = groups.device.index or 0
    backend = "nccl" if groups.device.type == "cuda" else "gloo"
    distributed.init_distributed_environment(
        rank=groups.rank, world_size=groups.world, local_rank=local, backend=backend
    )
    state = importlib.import_module("xfuser.core.distributed.parallel_state")
    if state.model_parallel_is_initialized():
        state.destroy_model_parallel()
    distributed.initialize_model_parallel(
        sequence_parallel_degree=groups.world, ring_degree=ring, ulysses_degree=ulysses
    )


def _own_ring() -> tuple[Callable[..., Any] | None, Any]:
    """xfuser's ring function, or None where it cannot be imported, and the kernel it shall use."""
    kernels = importlib.import_module("yunchang.kernels")
    # Its plain-torch kernel reports no sum of exponentials, which makes a ring silently wrong.
    has_flash = importlib.import_module("yunchang.globals").HAS_FLASH_ATTN
    kind = kernels.AttnType.FA if has_flash else kernels.AttnType.TORCH_FLASH
    try:
        ring = importlib.import_module("xfuser.core.long_ctx_attention.ring").xdit_ring_flash_attn_func
    except (ImportError, AttributeError):
        return None, kind
    return ring, kind


def _make_layer(layer_class: Any, inner: Callable[..., Tensor], kind: Any) -> Any:
    """xfuser's layer with `inner` as its attention."""

    class Layer(layer_class):  # type: ignore[misc]
        def __init__(self) -> None:
            # Not xfuser's constructor: it imports its ring, whatever is used.
            super(layer_class, self).__init__(ring_impl_type="basic", attn_type=kind)
            self.use_kv_cache = False
            self.attn_processor = None
            self.q_descale = self.k_descale = self.v_descale = None
            self.ring_attn_fn = inner

    return Layer()
