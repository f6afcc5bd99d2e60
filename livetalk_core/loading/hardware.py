"""What this machine offers, as far as it can be told without the model libraries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")


def has_gpu_driver() -> bool:
    """Whether there may be a GPU that torch can use; on other systems than Linux only torch knows."""
    return not sys.platform.startswith("linux") or any(os.path.exists(path) for path in _GPU_DRIVERS)


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies in bfloat16 (AVX512-BF16 or AMX); emulated, it is slower than float32."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in text.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags
