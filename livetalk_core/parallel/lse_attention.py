"""Attention that also returns the logarithm of its sum of exponentials, so that parts of it can be merged."""

from __future__ import annotations

import torch
from torch import Tensor

_FLASH_DTYPES = (torch.bfloat16, torch.float16)
_MAX_FLASH_WIDTH = 256


def attention_with_lse(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Attention of ``[B, L, N, D]`` tensors over their keys.

    Returns:
        The output in float32 (float64 for float64) ``[B, L, N, D]`` and ln(sum(exp(scores))) ``[B, L, N, 1]``.
    """
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    if query.dtype == torch.float64:
        out, lse = _by_products(q, k, v)
    elif query.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
    elif query.device.type == "cuda" and _has_flash(query):
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[:2]
    elif query.device.type == "cuda":
        out, lse = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True)[:2]
        # This kernel rounds the length up.
        lse = lse[..., : q.shape[2]]
    else:
        out, lse = _by_products(q.float(), k.float(), v.float())
    precise = torch.promote_types(out.dtype, torch.float32)
    return out.transpose(1, 2).to(precise), lse.transpose(1, 2).unsqueeze(-1).to(precise)


def _has_flash(query: Tensor) -> bool:
    """Cards before Ampere have no such kernel."""
    fits = query.dtype in _FLASH_DTYPES and query.shape[-1] <= _MAX_FLASH_WIDTH
    return fits and torch.cuda.get_device_capability(query.device) >= (8, 0)


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys from that over each of them; shapes as above."""
    weight = torch.sigmoid(more_lse - lse)
    return torch.lerp(out, more, weight.expand_as(out)), torch.logaddexp(lse, more_lse)


def _by_products(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The same as matrix products of ``[B, N, L, D]`` tensors, where no kernel returns the sum."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return torch.softmax(scores, dim=-1) @ v, torch.logsumexp(scores, dim=-1)
