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
    """Turns SIGINT and SIGTERM inside the block into KeyboardInterrupt at a harmless moment.

    Making a chunk has no side effects, so it may be broken off anywhere; writing may not. Signals are handled
    by the main thread alone: on other threads the block changes nothing.

    Attributes:
        received: Number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._held = 0
        self._settled = False
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
        """Let the block finish first.

        A signal from before counts at its end as well: an exception raised in a destructor or import hook is
        swallowed by the interpreter.
        """
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
        self._raise_if_due()

    def settle(self) -> None:
        """The interruption is being dealt with: whoever presses again shall not lose what is being finished."""
        self._settled = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        self._raise_if_due()

    def _raise_if_due(self) -> None:
        if self.received is not None and not self._held and not self._settled:
            raise KeyboardInterrupt(self.received)
