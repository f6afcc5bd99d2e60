"""Attention functions and the seam through which self attention is spread over several ranks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError

AttentionFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(query, key, value), each ``[B, L, N, D]`` in one dtype -> ``[B, L, N, D]``; global, scale 1/sqrt(D)."""


def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Scaled dot-product attention of ``[B, L, N, D]`` tensors, not causal, scale 1/sqrt(D)."""
    if query.device.type == "cpu" and torch.is_grad_enabled() and query.requires_grad:
        return _matmul_attention(query, key, value)
    query, key, value = (t.transpose(1, 2) for t in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)


def _matmul_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same function as matrix products; on a CPU their backward is faster than the fused kernel's."""
    batch, length, heads, width = query.shape
    query, key, value = (t.transpose(1, 2).flatten(0, 1) for t in (query, key, value))
    scores = torch.baddbmm(query.new_zeros(1), query, key.transpose(1, 2), beta=0, alpha=width**-0.5)
    weights = torch.softmax(scores, dim=-1, dtype=scores.dtype)
    return torch.bmm(weights, value).view(batch, heads, length, width).transpose(1, 2)


def attention_function(name: str = "native") -> AttentionFunction:
    """The attention kernel called ``name``: ``native`` (torch SDPA) or one of diffusers' attention backends.

    Raises ConfigError if diffusers knows no such backend; a backend whose package is missing is refused by
    diffusers at its first use.
    """
    if name == "native":
        return sdpa
    from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

    try:
        backend = AttentionBackendName(name)
    except ValueError:
        known = ", ".join(sorted(b.value for b in AttentionBackendName))
        raise ConfigError(
            f"Unknown attention backend {name!r}.", hint=f"Choose native or one of: {known}."
        ) from None
    return partial(dispatch_attention_fn, backend=backend)


class SequenceShard(Protocol):
    """One rank's share of the token sequence; the model calls nothing else to run on many ranks.

    A shard may pad its share behind the last real token (ceil(L/P) tokens on every rank). Padded tokens are
    computed and thrown away; `attention` must not let them act as keys.
    """

    def token_range(self, length: int) -> tuple[int, int]:
        """First and one-past-last real token of this rank out of ``length``."""

    def split(self, tokens: Tensor) -> Tensor:
        """``[B, L, ...]`` on every rank -> this rank's ``[B, l, ...]``, padded at its end if need be."""

    def gather(self, local: Tensor) -> Tensor:
        """Every rank's ``[B, l, ...]`` -> ``[B, >=L, ...]`` in token order, any padding at its end."""

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Self attention of the local tokens ``[B, l, N, D]`` over the whole sequence."""


class LocalShard:
    """The whole sequence on one rank."""

    def __init__(self, attention: AttentionFunction = sdpa) -> None:
        self._attention = attention

    def token_range(self, length: int) -> tuple[int, int]:
        """All tokens."""
        return 0, length

    def split(self, tokens: Tensor) -> Tensor:
        """The tokens themselves."""
        return tokens

    def gather(self, local: Tensor) -> Tensor:
        """The tokens themselves."""
        return local

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The attention function this shard was made with."""
        return self._attention(query, key, value)


class FrameSegment(NamedTuple):
    """Consecutive local tokens: `frames` latent frames from `frame` on, `tokens` local tokens of each."""

    frame: int
    frames: int
    tokens: int


def frame_segments(start: int, count: int, tokens_per_frame: int, frames: int) -> tuple[FrameSegment, ...]:
    """Cut the token range ``[start, start + count)`` at latent-frame borders into at most four segments.

    Tokens beyond the last frame are a shard's padding; they are counted to the last frame, so that their
    result is finite.
    """
    segments: list[FrameSegment] = []
    position, stop = start, start + count
    total = tokens_per_frame * frames
    while position < min(stop, total):
        frame, offset = divmod(position, tokens_per_frame)
        whole = (min(stop, total) - position) // tokens_per_frame if offset == 0 else 0
        if whole:
            segment = FrameSegment(frame, whole, tokens_per_frame)
        else:
            segment = FrameSegment(frame, 1, min(tokens_per_frame - offset, min(stop, total) - position))
        segments.append(segment)
        position += segment.frames * segment.tokens
    if stop > position:
        segments.append(FrameSegment(frames - 1, 1, stop - position))
    return tuple(segments)


def frame_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: tuple[FrameSegment, ...],
    attention: AttentionFunction = sdpa,
) -> Tensor:
    """Attention of tokens ``[B, l, N, D]`` over only their own latent frame's ``[B, T, m, N, D]`` keys.

    ``segments`` says which frames the tokens belong to; whole frames run as one batched call.
    """
    outputs: list[Tensor] = []
    position = 0
    for segment in segments:
        length = segment.frames * segment.tokens
        span = slice(segment.frame, segment.frame + segment.frames)
        local = torch.unflatten(query[:, position : position + length], 1, (segment.frames, segment.tokens))
        out = attention(local.flatten(0, 1), key[:, span].flatten(0, 1), value[:, span].flatten(0, 1))
        outputs.append(torch.unflatten(out, 0, (-1, segment.frames)).flatten(1, 2))
        position += length
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)
