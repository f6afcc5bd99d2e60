"""The teacher's guidance: what speech and text add is exaggerated (reference 1.5, dual guidance)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .denoiser import Conditioning, clean_estimate


def guidance_terms(
    given: Conditioning, null_context: Tensor, text: float, audio: float
) -> list[tuple[float, Conditioning]]:
    """Weights of the passes whose weighted sum is null + audio (no_text - null) + text (given - no_text).

    Passes without weight are left out; a model without text (every context is the null context) has no pass for it.
    """
    no_text = given.without_text(null_context)
    null = no_text.without_speech()
    if torch.equal(no_text.context, given.context):
        terms = [(audio, given), (1 - audio, null)]
    else:
        terms = [(text, given), (audio - text, no_text), (1 - audio, null)]
    return [(weight, passed) for weight, passed in terms if weight]


def guided_estimate(
    teacher: nn.Module,
    latents: Tensor,
    level: Tensor,
    given: Conditioning,
    null_context: Tensor,
    text: float,
    audio: float,
) -> Tensor:
    """The teacher's estimate of the clean latents under dual guidance; arguments as for `clean_estimate`.

    Args:
        null_context: Text states of the unconditional pass [1,L,text_dim].
        text, audio: Guidance scales; 1 is none.
    """
    terms = guidance_terms(given, null_context, text, audio)
    estimates = [weight * clean_estimate(teacher, latents, level, passed) for weight, passed in terms]
    return torch.stack(estimates).sum(0)
