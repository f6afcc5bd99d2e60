"""What a rank is made of: its engine, its line to whoever commands it, and one chunk on its way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .frame_ring import FrameRing
from .messages import ModelInfo
from .wire import ErrorInfo
from .worker_messages import Command, Encode, Open, OpenDecode, Outcome, Phase, Restore, Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class RunCancelled(Exception):  # noqa: N818 - control flow, not an error
    """Leaves a chunk between two steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step


@dataclass(frozen=True)
class Result:
    """What a chunk leaves behind besides its frames: safetensors state (rank 0), `final` on all ranks."""

    state: bytes = b""
    final: bool = False
    timings: dict[str, float] | None = None
    stats: dict[str, float] | None = None


class Standing(NamedTuple):
    """Where a stream stands: its next chunk, the samples heard before it, whether it is over."""

    chunk: int = 0
    samples: int = 0
    ended: bool = False


class Line(Protocol):
    """What a rank needs of `WorkerLink`; ranks on other hosts get their commands from rank 0 in this form."""

    def ready(self) -> None:
        """See `WorkerLink.ready`."""

    def commands(self) -> Iterator[tuple[Command, list[int]]]:
        """See `WorkerLink.commands`."""

    def progress(
        self, phase: Phase, stream: int = 0, chunk: int = 0, step: int = 0, steps: int = 0, *, completed: bool = False
    ) -> None:
        """See `WorkerLink.progress`."""

    def cancelled(self, stream: int, epoch: int) -> bool:
        """See `WorkerLink.cancelled`."""

    def answer(self, outcome: Outcome) -> None:
        """See `WorkerLink.answer`."""

    def fail(self, error: ErrorInfo, *, fatal: bool, stream: int = 0, chunk: int = 0) -> None:
        """See `WorkerLink.fail`."""

    def forget(self, stream: int) -> None:
        """See `WorkerLink.forget`."""


class RankEngine(Protocol):
    """One rank's engine.

    LiveTalkError from any method means: not carried out, but still usable; ParallelError: the ranks are not one
    engine any more.
    """

    def load(self) -> ModelInfo:
        """Load the model."""

    def encode(self, command: Encode) -> int:
        """Encode a clip and keep it; returns its video frames."""

    def open(self, command: Open) -> Standing:
        """Open a stream."""

    def open_decode(self, command: OpenDecode, latents: int) -> None:
        """Open a decoding of the latents in a descriptor, which is the engine's to close."""

    def restore(self, command: Restore) -> Standing:
        """Put a stream back to a state; b"" is its beginning."""

    def run(self, context: RunContext) -> Result:
        """Make a chunk."""

    def close(self, stream: int) -> None:
        """Forget a stream."""

    def forget_clip(self, clip: int) -> None:
        """Forget a clip."""


class RunContext:
    """One Run command on one rank.

    Args:
        link: The line to the supervisor.
        command: The command.
        ring: The stream's ring on rank 0, else None.
    """

    def __init__(self, link: Line, command: Run, ring: FrameRing | None) -> None:
        self.command, self.ring = command, ring
        self._link = link
        self.shape: tuple[int, ...] = (0, 0, 0, 0)
        self.first_frame = 0

    @property
    def cancelled(self) -> bool:
        """Whether this rank has heard that the chunk is to be left."""
        return self._link.cancelled(self.command.stream, self.command.epoch)

    def between_steps(self, step: int, steps: int, *, cancelled: bool | None = None) -> None:
        """Call before each step; leaves the chunk if it is cancelled.

        Args:
            step, steps: The step that would begin, of how many.
            cancelled: What the ranks agreed on, where they have to leave at the same step.
        """
        self.at("step", step, steps, completed=step > 0)
        if self.cancelled if cancelled is None else cancelled:
            raise RunCancelled(step)

    def at(self, phase: Phase, step: int = 0, steps: int = 0, *, completed: bool = False) -> None:
        """Say where the rank is; see `WorkerLink.progress`."""
        command = self.command
        self._link.progress(phase, command.stream, command.chunk, step, steps, completed=completed)

    def begin_frames(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The slot's memory [F,H,W,3] to be filled; on rank 0 only."""
        assert self.ring is not None
        return self.ring.begin(self.command.slot, shape)

    def finish_frames(self, shape: tuple[int, ...], first_frame: int) -> None:
        """The slot is filled; `first_frame` is the number of its first frame within the stream."""
        assert self.ring is not None
        command = self.command
        self.shape, self.first_frame = shape, first_frame
        self.ring.finish(
            command.slot, shape, stream=command.stream, epoch=command.epoch, chunk=command.chunk,
            first_frame=first_frame,
        )  # fmt: skip
