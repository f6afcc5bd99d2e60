"""Ctrl-C and termination: at once while the model computes, held back while files are being written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Turns the first SIGINT or SIGTERM inside the block into one KeyboardInterrupt at a harmless moment.

    Making a chunk has no side effects, so it may be broken off anywhere; writing may not. Signals are handled
    by the main thread alone: on other threads the block changes nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = 0
        self._raised = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # A process started in the background with its signals ignored shall go on ignoring them.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let the block finish first."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._raise_if_due()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        # Once: whoever presses again while the file is being finished shall not lose it.
        if self.received is not None and not self._held and not self._raised:
            self._raised = True
            raise KeyboardInterrupt(self.received)
