"""Device and number format, settled before the model libraries are imported where that can be."""

from __future__ import annotations

from ..loading.hardware import cpu_has_bf16, has_gpu_driver

_CPU_FORMATS = {"auto": None, "fp32": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16"}


def settled_device(device: str, dtype: str) -> tuple[str, str]:
    """Device and number format by the names that "auto" stands for here.

    Raises:
        DeviceError: what this machine does not offer.
    """
    if device == "auto" and not has_gpu_driver():
        device = "cpu"
    if device == "cpu" and dtype in _CPU_FORMATS:
        auto = "bf16" if cpu_has_bf16() else "fp32"
        return device, _CPU_FORMATS[dtype] or auto
    # Late: only torch knows what a GPU can do, and it takes seconds to import.
    from ..loading.placement import DTYPE_NAMES, choose_placement

    placement = choose_placement(device, dtype)
    name = next(key for key, value in DTYPE_NAMES.items() if value is placement.dtype)
    return str(placement.device), name
