"""Memory of the processes that compute: now, at most, and how it grows."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
import psutil

GROWTH_CHUNKS = 100
"""Fewer timed chunks tell nothing about the growth of memory."""

_GROWTH_POINTS = 250


def resident_bytes(pids: Sequence[int]) -> int:
    """Resident sets of these processes, all together."""
    return sum(int(psutil.Process(pid).memory_info().rss) for pid in pids)


def peak_resident_bytes(pid: int) -> int:
    """Largest resident set of a process so far; of this one where the system tells no other's."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            peak = next(line for line in file if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024
    except (OSError, StopIteration):
        if sys.platform == "win32":
            return int(psutil.Process(pid).memory_info().peak_wset)
        import resource  # Late: Windows has none.

        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # Linux counts kibibytes, macOS bytes.
        return int(own if sys.platform == "darwin" else own * 1024)


def growth_per_100(resident: Sequence[int]) -> float | None:
    """Theil-Sen slope of one value per chunk, times 100; None for fewer than `GROWTH_CHUNKS` values.

    The median of the slopes between all pairs: a steady leak shows in full, whatever the noise, while outliers and
    a step near either end (the allocator warming up) hardly count. Long series are thinned to medians of blocks.
    """
    if len(resident) < GROWTH_CHUNKS:
        return None
    values = np.asarray(resident, np.float64)
    block = -(-len(values) // _GROWTH_POINTS)
    points = np.array([np.median(values[i : i + block]) for i in range(0, len(values) - block + 1, block)])
    first, second = np.triu_indices(len(points), 1)
    return float(np.median((points[second] - points[first]) / (second - first))) * 100 / block


def peak_gpu_bytes(device: str) -> int | None:
    """Largest memory torch has held on the GPU; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))
