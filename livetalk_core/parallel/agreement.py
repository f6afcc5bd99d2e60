"""Ranks that compute the same thing check that they do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ParallelError
from .groups import Groups


def require_agreement(groups: Groups, what: str, numbers: Sequence[int], tensors: Sequence[Tensor]) -> None:
    """Compare numbers and tensors over all ranks, bit for bit; collective.

    One row of 64-bit integers per rank goes round: the numbers, then SHA-256 of the tensors' shapes, number formats
    and bytes.

    Args:
        groups: The world.
        what: For the error message, such as "state after chunk 7".
        numbers: Equally many on every rank.
        tensors: Of any shape.

    Raises:
        ParallelError: naming the ranks that differ from rank 0.
    """
    row = torch.tensor([*numbers, *_digest(tensors)], dtype=torch.int64)
    rows = groups.all_gather(row)
    differing = [rank for rank in range(groups.world) if not torch.equal(rows[rank], rows[0])]
    if differing:
        raise ParallelError(
            f"The {what} of rank {', '.join(map(str, differing))} differs from that of rank 0.",
            "The ranks run different software or hardware; the stream is not continued from it.", ranks=differing,
        )  # fmt: skip


def _digest(tensors: Sequence[Tensor]) -> list[int]:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return [int.from_bytes(sha.digest()[i : i + 8], "little", signed=True) for i in range(0, 32, 8)]
