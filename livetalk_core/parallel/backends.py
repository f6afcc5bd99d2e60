"""Which implementation spreads the sequence over the ranks: torch, xfuser, or the one that proves right."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import Tensor

from .. import telemetry
from ..errors import LiveTalkError, MissingDependencyError, ParallelError
from ..models.attention import AttentionFunction, sdpa
from .groups import Groups
from .plan import ParallelPlan
from .sequence import SequenceParallel
from .sequence_xfuser import XFuserSequence, xfuser_layer

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
    theirs: SequenceParallel | None = None
    problem = _unusable()
    # Making xfuser's groups is collective: nobody begins where one cannot.
    if not _anywhere(groups, problem):
        theirs, problem = _tried(ours, plan, head_dim, dtype)
        # Collective as well: also who failed has to come here.
        failed = _anywhere(groups, problem)
        if theirs is not None and not failed:
            return theirs
    reason = problem or ParallelError("xfuser failed on another rank.")
    if backend == "xfuser":
        raise reason
    if groups.rank == 0:
        telemetry.emit("sequence_backend", logging.WARNING, backend="torch", reason=reason.message)
    return ours


def _unusable() -> LiveTalkError | None:
    try:
        xfuser_layer()
    except MissingDependencyError as error:
        return error
    return None


def _anywhere(groups: Groups, problem: LiveTalkError | None) -> bool:
    return bool(groups.all_gather(torch.tensor([problem is not None], dtype=torch.int64)).sum())


def _tried(
    ours: SequenceParallel, plan: ParallelPlan, head_dim: int, dtype: torch.dtype
) -> tuple[SequenceParallel | None, LiveTalkError | None]:
    """xfuser's split, and what is wrong with it; collective, and it always gets as far as the ranks' agreement."""
    expected = probe_attention(ours, plan, head_dim, dtype)
    try:
        theirs = XFuserSequence(ours.groups, plan.ulysses, plan.ring)
        difference = relative_difference(expected, probe_attention(theirs, plan, head_dim, dtype))
    except Exception as error:  # a third party's code on a third party's versions
        return None, ParallelError(f"xfuser failed ({type(error).__name__}: {str(error)[:200]}).")
    if difference <= _TOLERANCE[dtype]:
        return theirs, None
    return theirs, ParallelError(f"xfuser differs from torch by {difference:.1e} of the largest value.")


@torch.no_grad()
def probe_attention(shard: SequenceParallel, plan: ParallelPlan, head_dim: int, dtype: torch.dtype) -> Tensor:
    """This rank's attention over the same random numbers, whatever computes it."""
    groups = shard.groups
    # A few tokens per rank tell as much as all; the remainder over the ranks is kept, as it decides the padding.
    tokens = min(plan.tokens, 64 * plan.world + plan.tokens % plan.world)
    generator = torch.Generator().manual_seed(0)
    shape = (3, 1, tokens, plan.heads, head_dim)
    full = torch.randn(shape, generator=generator).to(dtype).to(groups.device)
    query, key, value = (shard.split(t) for t in full)
    start, stop = shard.token_range(tokens)
    return shard.attention(query, key, value)[:, : stop - start].float()


def relative_difference(expected: Tensor, found: Tensor) -> float:
    """Largest difference, as a share of the largest value."""
    return float((expected - found).abs().max() / expected.abs().max()) if expected.numel() else 0.0
