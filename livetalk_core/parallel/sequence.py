"""The token sequence spread over ranks: Ulysses (heads for tokens), ring (keys and values go round), or both."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..models.attention import AttentionFunction, sdpa
from .groups import Groups
from .lse_attention import attention_with_lse, merge
from .plan import block_lengths, places_per_rank, token_range

_SHARDS: weakref.WeakValueDictionary[str, SequenceParallel] = weakref.WeakValueDictionary()


class SequenceParallel:
    """This rank's share of the token sequence; implements `models.attention.SequenceShard` with torch alone.

    Rank r holds places [r*c, (r+1)*c) with c = ceil(L / world). Padding lies behind the last token only; keys and
    values are cut back to real tokens before they are attended to, so that no mask is needed. For inference: no
    gradient passes through.

    Args:
        groups: The world; making the object is collective.
        ulysses, ring: Degrees; their product is the world and ulysses divides the heads.
        attention: One-rank attention, used where a rank sees all tokens of its heads.

    Raises:
        ConfigError: degrees that do not fit the world.
    """

    def __init__(self, groups: Groups, ulysses: int, ring: int, attention: AttentionFunction = sdpa) -> None:
        if ulysses * ring != groups.world:
            raise ConfigError(f"ulysses {ulysses} x ring {ring} is not the world of {groups.world} ranks.")
        self.groups = groups
        self.ulysses, self.ring = ulysses, ring
        self._attention = attention
        self._block = groups.rank // ulysses
        self._length = 0
        # The compiler sees one operation that names its shard, and nothing of what happens between ranks.
        self._name = f"{groups.rank}/{groups.world}:{ulysses}x{ring}:{id(self)}"
        _SHARDS[self._name] = self

    def token_range(self, length: int) -> tuple[int, int]:
        """First and one-past-last real token of this rank."""
        return token_range(length, self.groups.world, self.groups.rank)

    def split(self, tokens: Tensor) -> Tensor:
        """``[B, L, ...]`` -> this rank's ``[B, c, ...]``, zeros behind the last token; L holds for what follows."""
        self._length = tokens.shape[1]
        start, stop = self.token_range(self._length)
        local = tokens[:, start:stop]
        missing = places_per_rank(self._length, self.groups.world) - (stop - start)
        return F.pad(local, (0, 0) * (tokens.ndim - 2) + (0, missing)) if missing else local

    def gather(self, local: Tensor) -> Tensor:
        """Every rank's ``[B, c, ...]`` -> ``[B, world*c, ...]`` on every rank."""
        return self.groups.all_gather(local).transpose(0, 1).flatten(1, 2)

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Self attention of the local tokens ``[B, c, N, D]`` over the whole sequence.

        Raises:
            ConfigError: heads that the ulysses degree does not divide.
            ParallelError: another rank is gone.
        """
        heads = query.shape[2]
        if heads % self.ulysses:
            raise ConfigError(
                f"{heads} heads / ulysses {self.ulysses} leaves {heads % self.ulysses}.",
                "Choose a ulysses degree that divides the heads.",
            )
        result: Tensor = sequence_attention(query, key, value, self._name, self._length)
        return result

    def run(self, query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
        """What `attention` does, for a sequence of `length` tokens."""
        if self.ulysses == 1:
            return self._ring(query, key, value, length)
        pending = [self._swap(_by_head_owner(t, self.ulysses)) for t in (query, key, value)]
        query, key, value = (_join_tokens(finish()) for finish in pending)
        out = self._ring(query, key, value, length)
        swapped = self._swap(_by_token_owner(out, self.ulysses))()
        return swapped.permute(1, 2, 0, 3, 4).flatten(2, 3)

    def _swap(self, parts: Tensor) -> Callable[[], Tensor]:
        """Start sending part u of ``[U, ...]`` to ulysses rank u; the call returns what they sent."""
        received, own = torch.empty_like(parts), self.groups.rank % self.ulysses
        first = self._block * self.ulysses
        others = [part for part in range(self.ulysses) if part != own]
        pending = self.groups.exchange(
            {first + part: parts[part] for part in others}, {first + part: received[part] for part in others}
        )
        received[own] = parts[own]

        def finish() -> Tensor:
            pending.wait()
            return received

        return finish

    def _ring(self, query: Tensor, key: Tensor, value: Tensor, length: int) -> Tensor:
        """Attention of one block's queries over all blocks of the sequence, for this rank's heads."""
        lengths = block_lengths(length, self.ulysses, self.ring)
        real = lengths[self._block]
        if self.ring == 1:
            return self._attention(query, key[:, :real], value[:, :real])
        held = torch.stack([key[:, :real], value[:, :real]])
        merged: tuple[Tensor, Tensor] | None = None
        for turn in range(self.ring):
            passing = self._pass_on(held, lengths, turn)
            if held.shape[2]:
                part = attention_with_lse(query, held[0], held[1])
                merged = part if merged is None else merge(*merged, *part)
            held = passing()
        assert merged is not None
        return merged[0].to(query.dtype)

    def _pass_on(self, held: Tensor, lengths: tuple[int, ...], turn: int) -> Callable[[], Tensor]:
        """Start sending the keys and values held in this turn to the next block's rank; the call returns the next."""
        if turn == self.ring - 1:
            return lambda: held
        rank, world, step = self.groups.rank, self.groups.world, self.ulysses
        coming = lengths[(self._block - turn - 1) % self.ring]
        received = held.new_empty((*held.shape[:2], coming, *held.shape[3:]))
        sends = {(rank + step) % world: held} if held.numel() else {}
        receives = {(rank - step) % world: received} if received.numel() else {}
        pending = self.groups.exchange(sends, receives)

        def finish() -> Tensor:
            pending.wait()
            return received

        return finish


@torch.library.custom_op("livetalk::sequence_attention", mutates_args=())
def sequence_attention(query: Tensor, key: Tensor, value: Tensor, shard: str, length: int) -> Tensor:
    """Self attention over all ranks of the `SequenceParallel` of that name, as one operation of a graph."""
    return _SHARDS[shard].run(query, key, value, length).contiguous()


@sequence_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, shard: str, length: int) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


def _by_head_owner(tensor: Tensor, ulysses: int) -> Tensor:
    """``[B, c, N, D]`` -> ``[U, B, c, N/U, D]``: part u is for the rank that computes those heads."""
    parts: Tensor = tensor.unflatten(2, (ulysses, -1))
    return parts.permute(2, 0, 1, 3, 4).contiguous()


def _join_tokens(parts: Tensor) -> Tensor:
    """``[U, B, c, n, D]`` -> ``[B, U*c, n, D]``; no copy for one batch entry."""
    return parts.transpose(0, 1).flatten(1, 2)


def _by_token_owner(tensor: Tensor, ulysses: int) -> Tensor:
    """``[B, U*c, n, D]`` -> ``[U, B, c, n, D]``: part u is for the rank that holds those tokens."""
    parts: Tensor = tensor.unflatten(1, (ulysses, -1))
    return parts.transpose(0, 1).contiguous()
