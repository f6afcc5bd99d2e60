"""How well a mouth that was read from speech fits the true one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .audio_model import PARAMETERS

_PARAMETER_WEIGHTS = (2.0, 1.0, 0.7, 0.4)
_LAYER_WEIGHTS = (0.3, 0.3, 1.0)
_CLOSED, _CLOSING_FROM, _CLOSURE_REACH = 0.12, 0.3, 9
_CLOSURE_WEIGHT = 0.25
_NEWEST, _NEWEST_WEIGHT = 33, 1.5


def closures_of(mouth: Tensor) -> Tensor:
    """1 where lips that open just before or just after are pressed together, else 0: mouth [B, F, 4] -> [B, F]."""
    opening = mouth[..., 0]
    peak = nn.functional.max_pool1d(opening[:, None], _CLOSURE_REACH, stride=1, padding=_CLOSURE_REACH // 2)[:, 0]
    return ((opening < _CLOSED) & (peak > _CLOSING_FROM)).float()


def mouth_loss(predicted: Tensor, mouth: Tensor) -> Tensor:
    """Weighted L1 + L2 + L1 of the time difference and cross entropy of closures, sharper at dips and closures.

    Args:
        predicted: [B, F, layers, 5], the last one a logit; mouth: [B, F, 4].
    """
    opening = mouth[..., :1].transpose(1, 2)
    peak = nn.functional.max_pool1d(opening, 7, stride=1, padding=3)
    dip = (peak - opening).transpose(1, 2)
    closed = closures_of(mouth)
    recent = torch.ones(mouth.shape[1])
    recent[-_NEWEST:] = _NEWEST_WEIGHT
    weight = (1 + 1.5 * dip + 1.5 * closed[..., None]) * recent[None, :, None] * torch.tensor(_PARAMETER_WEIGHTS)
    total = predicted.new_zeros(())
    for layer, layer_weight in enumerate(_LAYER_WEIGHTS):
        error = predicted[:, :, layer, :PARAMETERS] - mouth
        change = (error[:, 1:] - error[:, :-1]).abs() * weight[:, 1:]
        closing = nn.functional.binary_cross_entropy_with_logits(predicted[:, :, layer, PARAMETERS], closed)
        total = total + layer_weight * (
            (error.abs() * weight).mean()
            + 2 * (error.square() * weight).mean()
            + 0.5 * change.mean()
            + _CLOSURE_WEIGHT * closing
        )
    return total
