"""Makes xfuser and yunchang importable and runnable without a GPU, for tests only.

xfuser asks for a CUDA device and triton while it is imported, and yunchang's flash kernel has no CPU form. Nothing of
what is computed here is replaced except that kernel, by torch's own for the CPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from contextlib import contextmanager
from typing import Any

import torch


def missing() -> str:
    """Which package is not installed; empty if all are."""
    absent = [name for name in ("xfuser", "yunchang") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


def install() -> None:
    """Import xfuser's distributed state and attention layer, as far as its released packages allow."""
    _bare_package("xfuser")
    if importlib.util.find_spec("triton") is None:
        _absent_kernels("xfuser.core.sparge_attention.block_mask")
    envs = importlib.import_module("xfuser.envs")
    envs.get_device_version = lambda: None
    envs.get_torch_distributed_backend = lambda: "gloo"
    checker = getattr(envs, "PACKAGES_CHECKER", None)
    if checker is not None:
        # Without it xfuser makes no groups for its attention layer.
        checker.packages_info["has_long_ctx_attn"] = True
    kernels = importlib.import_module("yunchang.kernels.attention")
    kernels._scaled_dot_product_flash_attention = _cpu_flash
    with _pretended_gpu():
        importlib.import_module("xfuser.core.distributed")
        importlib.import_module("xfuser.core.long_ctx_attention")


def complete_ring() -> None:
    """Supply the name that xfuser's ring imports and released yunchang packages lack."""
    utilities: Any = importlib.import_module("yunchang.ring.utils")
    if not hasattr(utilities, "update_npu_out"):
        utilities.update_npu_out = None
    with _pretended_gpu():
        importlib.import_module("xfuser.core.long_ctx_attention.ring")


def _cpu_flash(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dropout_p: float = 0.0, is_causal: bool = False, **options: Any
) -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, dropout_p, is_causal, scale=options.get("scale")
    )


def _bare_package(name: str) -> None:
    """The package without running its __init__, which imports every pipeline and wants a GPU."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module: Any = types.ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations or ())
    module.__spec__ = spec
    sys.modules[name] = module


def _absent_kernels(name: str) -> None:
    """A module whose functions exist and fail when called."""
    module: Any = types.ModuleType(name)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(f"{name} needs triton")

    def lookup(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return fail

    module.__getattr__ = lookup
    sys.modules[name] = module


@contextmanager
def _pretended_gpu() -> Any:
    real = torch.cuda.is_available
    torch.cuda.is_available = lambda: True
    try:
        yield
    finally:
        torch.cuda.is_available = real
