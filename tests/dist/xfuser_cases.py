"""Cases of test_xfuser: the xfuser backend against the torch backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import xfuser_shim

from livetalk_core.errors import LiveTalkError
from livetalk_core.parallel import sequence_xfuser
from livetalk_core.parallel.backends import make_sequence, probe_attention, relative_difference
from livetalk_core.parallel.groups import Groups
from livetalk_core.parallel.plan import make_plan
from livetalk_core.parallel.sequence import SequenceParallel

HEADS = 8
DEGREES = {2: [(2, 1), (1, 2)], 4: [(2, 2)]}
LENGTHS = (64, 61)


def compare(groups: Groups, ulysses: int, ring: int, length: int, own_ring: bool) -> dict[str, Any]:
    """The self-check of `auto` on one plan."""
    if own_ring:
        xfuser_shim.complete_ring()
    plan = make_plan(groups.world, HEADS, length, (8, 8), ulysses=ulysses, ring=ring)
    ours = SequenceParallel(groups, ulysses, ring)
    theirs = sequence_xfuser.XFuserSequence(groups, ulysses, ring)
    found = [probe_attention(shard, plan, 16, torch.float32) for shard in (ours, theirs)]
    difference = relative_difference(*found)
    # xfuser keeps one set of groups: the next object ends the life of the one before.
    chosen = make_sequence(plan, groups, 16, torch.float32, "xfuser")
    automatic = make_sequence(plan, groups, 16, torch.float32, "auto")
    return {
        "difference": difference,
        "own_ring": theirs._xfuser_ring is not None,
        "chosen": type(chosen).__name__,
        "automatic": type(automatic).__name__,
    }


def wrong(groups: Groups) -> dict[str, Any]:
    """A backend that computes something else is refused."""
    plan = make_plan(groups.world, HEADS, 64, (8, 8))
    real = sequence_xfuser.XFuserSequence.run
    sequence_xfuser.XFuserSequence.run = lambda self, q, k, v, length: real(self, q, k, v, length) * 1.01
    try:
        make_sequence(plan, groups, 16, torch.float32, "xfuser")
    except LiveTalkError as error:
        return {"error": error.message}
    finally:
        sequence_xfuser.XFuserSequence.run = real
    return {"error": ""}


def fails_on_one(groups: Groups) -> dict[str, Any]:
    """A backend that fails on one rank alone, after its exchanges, is refused on all."""
    plan = make_plan(groups.world, HEADS, 64, (8, 8))
    real = sequence_xfuser.XFuserSequence.run

    def run(self: Any, query: Any, key: Any, value: Any, length: int) -> Any:
        result = real(self, query, key, value, length)
        if groups.rank == 0:
            raise RuntimeError("no kernel image")
        return result

    sequence_xfuser.XFuserSequence.run = run
    try:
        make_sequence(plan, groups, 16, torch.float32, "xfuser")
    except LiveTalkError as error:
        return {"error": error.message}
    finally:
        sequence_xfuser.XFuserSequence.run = real
    return {"error": ""}


def cases(world: int) -> dict[str, Callable[[Groups], dict[str, Any]]]:
    """All cases of a world; those with xfuser's own ring come last, because its import stays."""
    xfuser_shim.install()
    found: dict[str, Callable[[Groups], dict[str, Any]]] = {}
    for own_ring in (False, True):
        for ulysses, ring in DEGREES[world]:
            for length in LENGTHS:
                key = f"{ulysses}x{ring}-{length}-{'xfuser' if own_ring else 'torch'}"
                found[key] = partial(compare, ulysses=ulysses, ring=ring, length=length, own_ring=own_ring)
    found["wrong"] = wrong
    found["fails_on_one"] = fails_on_one
    return found
