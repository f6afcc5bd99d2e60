"""Which implementation spreads the sequence over the ranks: torch, xfuser, or the one that proves right."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from .. import telemetry
from ..errors import LiveTalkError, MissingDependencyError, ParallelError
from ..models.attention import AttentionFunction, sdpa
from .groups import Groups
from .plan import ParallelPlan
from .sequence import SequenceParallel
from .sequence_xfuser import XFuserSequence

Backend = Literal["auto", "torch", "xfuser"]

_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}
"""Largest difference between two backends, relative to the largest output."""


def make_sequence(
    plan: ParallelPlan,
    groups: Groups,
    head_dim: int,
    dtype: torch.dtype,
    backend: Backend = "auto",
    attention: AttentionFunction = sdpa,
) -> SequenceParallel:
    """The sequence split of a plan.

    Args:
        plan: Its degrees, heads and tokens.
        groups: The world; the call is collective.
        head_dim: Width of a head.
        dtype: Number format of queries, keys and values.
        backend: "torch"; "xfuser"; "auto" is xfuser on GPUs if it agrees with torch, and says once if it does not.
        attention: One-rank attention of the torch backend.

    Raises:
        MissingDependencyError: xfuser was asked for and is not usable.
        ParallelError: xfuser was asked for and computes something else.
    """
    ours = SequenceParallel(groups, plan.ulysses, plan.ring, attention)
    if backend == "torch" or (backend == "auto" and groups.device.type != "cuda"):
        return ours
    try:
        theirs = XFuserSequence(groups, plan.ulysses, plan.ring)
        difference = largest_difference(ours, theirs, plan, head_dim, dtype)
        problem: LiveTalkError | None = None
        if not difference <= _TOLERANCE[dtype]:
            problem = ParallelError(f"xfuser differs from torch by {difference:.1e} of the largest value.")
    except MissingDependencyError as error:
        problem = error
    except Exception as error:  # a third party's code on a third party's versions
        problem = ParallelError(f"xfuser failed ({type(error).__name__}: {str(error)[:200]}).")
    failed = int(groups.all_gather(torch.tensor([problem is not None], dtype=torch.int64)).sum())
    if not failed:
        return theirs
    reason = problem or ParallelError("xfuser failed on another rank.")
    if backend == "xfuser":
        raise reason
    if groups.rank == 0:
        telemetry.emit("sequence_backend", logging.WARNING, backend="torch", reason=reason.message)
    return ours


@torch.no_grad()
def largest_difference(
    ours: SequenceParallel, theirs: SequenceParallel, plan: ParallelPlan, head_dim: int, dtype: torch.dtype
) -> float:
    """How far two backends are apart on random numbers, relative to the largest output, on this rank."""
    groups = ours.groups
    # A few tokens per rank tell as much as all; the remainder over the ranks is kept, as it decides the padding.
    tokens = min(plan.tokens, 64 * plan.world + plan.tokens % plan.world)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, tokens, plan.heads, head_dim)
    full = torch.randn(shape, generator=generator).to(dtype).to(groups.device)
    results = []
    for shard in (ours, theirs):
        query, key, value = (shard.split(t) for t in full)
        start, stop = shard.token_range(tokens)
        results.append(shard.attention(query, key, value)[:, : stop - start].float())
    if not results[0].numel():
        return 0.0
    return float((results[0] - results[1]).abs().max() / results[0].abs().max())
