"""What picture and prompt are to the model: computed for a stream, kept for the next one that shows the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..models.transformer import StreamConditioning


@dataclass(frozen=True)
class Conditions:
    """The costly part of a stream's constants.

    Attributes:
        y: Mask and reference latents [1,20,T,h,w].
        conditioning: Text and image keys and values of all blocks.
    """

    y: Tensor
    conditioning: StreamConditioning


class ConditionCache:
    """Keeps the newest conditions of one model, and no more: text keys alone are hundreds of megabytes at full size."""

    def __init__(self) -> None:
        self._key = ""
        self._kept: Conditions | None = None

    def get(self, key: str, make: Callable[[], Conditions]) -> Conditions:
        """The conditions under this key, made if they are not the newest."""
        if self._kept is None or key != self._key:
            self._kept = None  # the old ones need not be there while the new ones are made
            self._kept, self._key = make(), key
        return self._kept
