"""Sound on its way to the model, kept for the video's sound track and compared with what a state has heard."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import StateError

Samples = NDArray[np.float32]
_OTHER_SOUND = "Give the recording that the stream was begun with, or start from the beginning."


class SoundTrack:
    """Blocks that the model reads, of which `take` hands out what belongs to the frames made.

    One thread may read while another takes.

    Args:
        blocks: The sound from its beginning.
        skip: Leave out this many samples in what `take` gives: sound of frames made earlier.
        heard: How many samples the resumed stream has heard.
        newest: The last of those samples, [S] with S <= heard; they decide, with the state, what comes next.
    """

    def __init__(
        self, blocks: Iterable[Samples], skip: int = 0, heard: int = 0, newest: Samples | None = None
    ) -> None:
        self.samples = 0
        self._blocks = blocks
        self._skip = self._taken = skip
        self._heard = heard
        self._newest = np.zeros(0, np.float32) if newest is None else newest[-heard:] if heard else newest[:0]
        self._pending: deque[Samples] = deque()

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks:
            start, self.samples = self.samples, self.samples + len(block)
            self._compare(block, start)
            self._pending.append(block[max(0, self._skip - start) :])
            yield block
        if self.samples < self._heard:
            raise StateError(
                f"The sound ends after {self.samples} samples, the saved stream has heard {self._heard}.",
                _OTHER_SOUND,
            )

    def take(self, stop: int) -> Samples:
        """The sound from where the last call ended up to sample `stop` of the stream, [S], as far as it was read."""
        parts = [np.zeros(0, np.float32)]
        while self._pending and self._taken < stop:
            block = self._pending.popleft()
            part = block[: stop - self._taken]
            if len(part) < len(block):
                self._pending.appendleft(block[len(part) :])
            parts.append(part)
            self._taken += len(part)
        return np.concatenate(parts)

    def _compare(self, block: Samples, start: int) -> None:
        """Refuse sound that differs from what the state holds; `block` begins at sample `start`."""
        first = self._heard - len(self._newest)
        low, high = max(start, first), min(start + len(block), self._heard)
        if low < high and not np.array_equal(
            block[low - start : high - start], self._newest[low - first : high - first]
        ):
            raise StateError("The sound is not the one that the saved stream has heard.", _OTHER_SOUND)
