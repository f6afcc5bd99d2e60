"""What ranks have to know of each other: the same state, one of them wants to stop, what rank 0 was told."""

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
    if groups.alone:
        return
    row = torch.tensor([*numbers, *_digest(tensors)], dtype=torch.int64)
    rows = groups.all_gather(row)
    differing = [rank for rank in range(groups.world) if not torch.equal(rows[rank], rows[0])]
    if differing:
        raise ParallelError(
            f"The {what} of rank {', '.join(map(str, differing))} differs from that of rank 0.",
            "The ranks run different software or hardware; the stream is not continued from it.", ranks=differing,
        )  # fmt: skip


def any_rank(groups: Groups, flag: bool) -> bool:
    """Whether the flag is set on any rank, so that all leave a loop in the same turn; collective."""
    return bool(groups.all_gather(torch.tensor([flag], dtype=torch.int64)).any())


def broadcast_bytes(groups: Groups, data: bytes | None, limit: int, source: int = 0) -> bytes:
    """Bytes of the source rank on every rank: a length as one 64-bit integer, then the bytes; collective.

    Args:
        groups: The world.
        data: On the source rank; the others give None.
        limit: More bytes than this are refused, on every rank.
        source: The rank that has them.

    Raises:
        ParallelError: more than `limit` bytes.
    """
    given = b"" if data is None else data
    length = int(groups.broadcast(torch.tensor([len(given)], dtype=torch.int64), source))
    if not 0 <= length <= limit:
        raise ParallelError(f"Rank {source} sends {length} bytes, at most {limit} are taken.", rank=source)
    if length == 0:
        return b""
    payload = torch.empty(length, dtype=torch.uint8)
    if groups.rank == source:
        payload = torch.frombuffer(bytearray(given), dtype=torch.uint8)
    return groups.broadcast(payload, source).numpy().tobytes()


def _digest(tensors: Sequence[Tensor]) -> list[int]:
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return [int.from_bytes(sha.digest()[i : i + 8], "little", signed=True) for i in range(0, 32, 8)]
