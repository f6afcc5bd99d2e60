"""Memory that a chunk frees stays in the process for the next one.

A chunk on the CPU allocates and frees hundreds of megabytes of intermediate results in pieces of some megabytes. By
default the GNU C library gives them back to the kernel, which has to clear every page before the next chunk may have
it: some 20,000 page faults per chunk of the embedded model, a tenth of its time.
"""

from __future__ import annotations

import ctypes
import sys

# From malloc.h. Settings of the environment (MALLOC_..., GLIBC_TUNABLES) are overruled.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20
_KEPT = 512 * 2**20


def keep_freed_memory() -> bool:
    """Let the C library keep up to 512 MiB of freed memory; True if it can be told so.

    For the whole process, and only worth it where tensors are in host memory. Pieces above 32 MiB, the most that can
    be set, go back as before.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    set_option.argtypes, set_option.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    pieces = set_option(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    return bool(pieces and set_option(_M_TRIM_THRESHOLD, _KEPT))
