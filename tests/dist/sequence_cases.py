"""Cases of test_sequence: attention, split against whole; imports torch alone, so that a world starts fast."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from livetalk_core.errors import ParallelError
from livetalk_core.models.attention import sdpa
from livetalk_core.parallel.agreement import any_rank, broadcast_bytes
from livetalk_core.parallel.groups import Groups
from livetalk_core.parallel.sequence import SequenceParallel, sequence_attention

HEADS = 12
DEGREES = {2: [(2, 1), (1, 2)], 3: [(3, 1), (1, 3)], 4: [(4, 1), (1, 4), (2, 2)]}
LENGTHS = {2: [64, 63, 1], 3: [66, 64, 4], 4: [64, 61, 5]}
"""Divisible; not divisible; so few tokens that a rank has none."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def attention(groups: Groups, ulysses: int, ring: int, length: int, dtype: torch.dtype) -> dict[str, float]:
    """Split attention of two batch entries against the whole, and both against float64."""
    generator = torch.Generator().manual_seed(length)
    full = torch.randn(3, 2, length, HEADS, 16, generator=generator).to(dtype)
    exact = sdpa(*full.double())
    shard = SequenceParallel(groups, ulysses, ring)
    local = shard.attention(*(shard.split(t) for t in full))
    gathered = shard.gather(local.flatten(2))[:, :length].unflatten(2, (HEADS, -1))
    whole = sdpa(*full)
    return {
        "largest": float(exact.abs().max()),
        "difference": float((gathered.double() - whole.double()).abs().max()),
        "error": float((gathered.double() - exact).abs().max()),
        "whole_error": float((whole.double() - exact).abs().max()),
    }


def compiler_contract(groups: Groups) -> dict[str, bool]:
    """The operation's shapes and schema as torch checks them."""
    shard = SequenceParallel(groups, groups.world, 1)
    tensor = torch.randn(1, 8, HEADS, 16)
    shard.split(torch.randn(1, 8 * groups.world, 4))
    arguments = (tensor, tensor + 1, tensor + 2, shard._name, 8 * groups.world)
    torch.library.opcheck(sequence_attention, arguments, test_utils=("test_schema", "test_faketensor"))
    return {"passed": True}


def signals(groups: Groups) -> dict[str, Any]:
    """A flag that one rank sets, and bytes that one rank has."""
    last = groups.world - 1
    text = bytes(range(256)) * 3
    refused = ""
    try:
        broadcast_bytes(groups, text if groups.rank == 0 else None, limit=767)
    except ParallelError as error:
        refused = error.message
    return {
        "any": [any_rank(groups, groups.rank == last), any_rank(groups, False)],
        "same": broadcast_bytes(groups, text if groups.rank == last else None, limit=768, source=last) == text,
        "empty": broadcast_bytes(groups, b"" if groups.rank == 0 else None, limit=0) == b"",
        "refused": refused,
    }


def lost_peer(groups: Groups) -> dict[str, str]:
    """The last rank leaves; what the others are told when they wait for it."""
    if groups.rank == groups.world - 1:
        dist.destroy_process_group()
        return {"error": "", "text": ""}
    source = groups.world - 1
    try:
        groups.exchange({}, {source: torch.empty(8)}).wait()
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}
    return {"error": "", "text": ""}


def over_gloo(case: Callable[[Groups], dict[str, Any]], groups: Groups) -> dict[str, Any]:
    """The case as ranks of several hosts run it, who have no sockets of their own between them."""
    assert groups.links is not None
    return case(replace(groups, links=None))


def cases(world: int) -> dict[str, Callable[[Groups], dict[str, Any]]]:
    """All cases of a world."""
    found: dict[str, Callable[[Groups], dict[str, Any]]] = {"compiler": compiler_contract, "signals": signals}
    for ulysses, ring in DEGREES[world]:
        for length in LENGTHS[world]:
            for name, dtype in DTYPES.items():
                key = f"attention-{ulysses}x{ring}-{length}-{name}"
                found[key] = partial(attention, ulysses=ulysses, ring=ring, length=length, dtype=dtype)
                found[f"{key}-gloo"] = partial(over_gloo, found[key])
    if world == 2:
        # Last, because nothing works after it.
        found["lost peer"] = lost_peer
    return found
