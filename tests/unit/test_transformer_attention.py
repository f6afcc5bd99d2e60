"""Attention over a part of the tokens, and kernels by name."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor
from transformer_models import make_inputs, make_model, relative, run

from livetalk_core.errors import ConfigError
from livetalk_core.models.attention import (
    LocalShard,
    attention_function,
    frame_attention,
    frame_segments,
    sdpa,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "cuts", [(0, 18), (0, 6, 12, 18), (0, 5, 18), (0, 1, 8, 17, 18), (0, 7, 10, 18), (0, 2, 4, 18)]
)
def test_audio_attention_of_uneven_token_ranges(cuts: tuple[int, ...]) -> None:
    frames, per_frame = 3, 6
    g = torch.Generator().manual_seed(3)
    q = torch.randn(2, 18, 2, 8, generator=g)
    k, v = torch.randn(2, 2, 3, 5, 2, 8, generator=g)
    naive = torch.cat([sdpa(q[:, 6 * f : 6 * f + 6], k[:, f], v[:, f]) for f in range(3)], dim=1)
    parts = [frame_attention(q[:, a:b], k, v, frame_segments(a, b - a, per_frame, frames)) for a, b in pairwise(cuts)]
    torch.testing.assert_close(torch.cat(parts, dim=1), naive)


def test_padding_of_a_shard_is_finite_and_changes_nothing() -> None:
    g = torch.Generator().manual_seed(3)
    q, (k, v) = torch.randn(1, 18, 2, 8, generator=g), torch.randn(2, 1, 3, 5, 2, 8, generator=g)
    padded = torch.cat([q[:, 14:], torch.zeros(1, 3, 2, 8)], dim=1)
    out = frame_attention(padded, k, v, frame_segments(14, 7, 6, 3))
    whole = frame_attention(q, k, v, frame_segments(0, 18, 6, 3))
    torch.testing.assert_close(out[:, :4], whole[:, 14:])
    assert out.shape == padded.shape and bool(out.isfinite().all())
    assert frame_segments(18, 4, 6, 3) == ((2, 1, 4),)  # a rank with nothing but padding


class _PaddedShard(LocalShard):
    """One rank that holds all tokens and three of padding, which it keeps out of the keys."""

    def split(self, tokens: Tensor) -> Tensor:
        padding = tokens.new_zeros(tokens.shape[0], 3, *tokens.shape[2:])
        return torch.cat([tokens, padding], dim=1)

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return sdpa(query, key[:, :-3], value[:, :-3])


def test_a_shard_may_pad() -> None:
    model, x = make_model(), make_inputs()
    with torch.inference_mode():
        before = run(model, x)
        model.use_sequence(_PaddedShard())
        assert relative(run(model, x), before) < 1e-6
        model.use_sequence(LocalShard())
        assert torch.equal(run(model, x), before)


def test_attention_backends_by_name() -> None:
    q, k, v = torch.randn(3, 1, 5, 2, 8)
    torch.testing.assert_close(attention_function("_native_math")(q, k, v), attention_function("native")(q, k, v))
    with pytest.raises(ConfigError, match="no_such_kernel"):
        attention_function("no_such_kernel")
