"""Re-cut a stream of sample blocks of any size into the slices that the chunks want."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..config import ChunkGeometry
from .ring import Samples, check_samples

MAX_WHOLE_SECONDS = 120
"""Longest sound that whole mode encodes at once; longer sound is for stream mode."""


def cut_slices(
    blocks: Iterable[NDArray[np.floating]],
    length: int,
    sample_rate: int,
    limit: int | None = None,
    skip: int = 0,
) -> Iterator[Samples]:
    """Slices of `length` samples as soon as they are full, then one of what remains, if anything does.

    Blocks are read only as far as needed, and never past `limit`.

    Args:
        blocks: Sample arrays [S] in order.
        length: Samples per slice.
        sample_rate: Hz, for error messages.
        limit: Use at most this many samples, counted before skipping.
        skip: Leave out this many samples at the start.

    Raises:
        AudioError: a block is not one channel of finite samples.
    """
    pending: list[Samples] = []
    held = 0
    for block in _limited(blocks, sample_rate, limit, skip):
        pending.append(block)
        held += len(block)
        if held < length:
            continue
        joined = np.concatenate(pending)
        full = held - held % length
        yield from np.split(joined[:full], range(length, full, length))
        pending, held = [joined[full:]], held - full
    if held:
        yield np.concatenate(pending)


def collect_clip(
    blocks: Iterable[NDArray[np.floating]], geometry: ChunkGeometry, limit: int | None = None
) -> Samples:
    """All samples for whole mode, read no further than its longest clip and one sample."""
    bound = MAX_WHOLE_SECONDS * geometry.sample_rate + 1
    bound = bound if limit is None else min(bound, limit)
    parts = list(cut_slices(blocks, geometry.slice_samples, geometry.sample_rate, bound))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _limited(
    blocks: Iterable[NDArray[np.floating]], sample_rate: int, limit: int | None, skip: int
) -> Iterator[Samples]:
    """Checked blocks without the first `skip` samples and without those from `limit` on."""
    position = 0
    for block in blocks:
        checked = check_samples(block, sample_rate, position)
        start, position = position, position + len(checked)
        kept = checked[max(0, skip - start) : len(checked) if limit is None else max(0, limit - start)]
        if len(kept):
            yield kept
        if limit is not None and position >= limit:
            return
