"""What every rank does with commands, whatever engine it runs: dispatch, cancellation, errors, frames."""

from __future__ import annotations

import argparse
import contextlib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..config import decode_config
from ..errors import LiveTalkError, ParallelError
from .connection import close_all
from .daemon_config import WorkerConfig
from .frame_ring import FrameRing
from .messages import ModelInfo
from .wire import ErrorInfo, redact, to_info
from .worker_messages import (
    ChunkCancelled,
    ChunkDone,
    Close,
    Command,
    Encode,
    Encoded,
    ForgetClip,
    Load,
    Loaded,
    Open,
    OpenDecode,
    Opened,
    Outcome,
    Phase,
    Restore,
    Run,
)

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
        if self.cancelled if cancelled is None else cancelled:
            raise RunCancelled(step)
        self.at("step", step, steps, completed=step > 0)

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


class WorkerLoop:
    """Takes commands until Stop.

    Args:
        link: The line to the supervisor.
        engine: Does the work.
    """

    def __init__(self, link: Line, engine: RankEngine) -> None:
        self._link, self._engine = link, engine
        self._rings: dict[int, FrameRing] = {}
        self._handlers: dict[type[Any], Callable[[Any, list[int]], None]] = {
            Load: self._load, Encode: self._encode, Open: self._open, OpenDecode: self._open_decode,
            Restore: self._restore, Run: self._run, Close: self._close, ForgetClip: self._forget_clip,
        }  # fmt: skip

    def serve(self) -> None:
        """Say that the rank is ready and work until Stop."""
        self._link.ready()
        for command, descriptors in self._link.commands():
            self._carry_out(command, descriptors)
            close_all(descriptors)

    def _carry_out(self, command: Command, descriptors: list[int]) -> None:
        stream, chunk = getattr(command, "stream", 0), getattr(command, "chunk", 0)
        try:
            self._handlers[type(command)](command, descriptors)
        except RunCancelled as stopped:
            assert isinstance(command, Run)
            self._link.progress("idle")
            self._link.answer(ChunkCancelled(stream, command.epoch, chunk, stopped.step))
        except LiveTalkError as error:
            self._link.progress("idle", stream, chunk)
            self._link.fail(to_info(error), fatal=isinstance(error, ParallelError), stream=stream, chunk=chunk)
        except Exception as error:
            # Whatever this was, the process and its device may be in any state: it is replaced.
            text = redact("".join(traceback.format_exception(error)))
            info = ErrorInfo(
                "worker_failed", redact(f"{type(error).__name__}: {error}"[:2000]),
                "This is a fault of the program, not of the input.", {"traceback": text[-8000:]},
            )  # fmt: skip
            self._link.fail(info, fatal=True, stream=stream, chunk=chunk)

    def _load(self, command: Load, descriptors: list[int]) -> None:
        self._link.progress("loading")
        model = self._engine.load()
        self._link.progress("idle", completed=True)
        self._link.answer(Loaded(model))

    def _encode(self, command: Encode, descriptors: list[int]) -> None:
        self._link.progress("encoding")
        frames = self._engine.encode(command)
        self._link.progress("idle", completed=True)
        self._link.answer(Encoded(command.clip, frames))

    def _open(self, command: Open, descriptors: list[int]) -> None:
        self._link.progress("opening", command.stream)
        self._attach(command, descriptors)
        self._opened(command.stream, self._engine.open(command))

    def _open_decode(self, command: OpenDecode, descriptors: list[int]) -> None:
        self._link.progress("opening", command.stream)
        self._attach(command, descriptors[1:])
        self._engine.open_decode(command, descriptors.pop(0))
        self._opened(command.stream, Standing())

    def _attach(self, command: Open | OpenDecode, descriptors: list[int]) -> None:
        if descriptors:
            ring = FrameRing(descriptors[0], command.slots, command.slot_bytes, writable=True)
            self._rings[command.stream] = ring

    def _restore(self, command: Restore, descriptors: list[int]) -> None:
        self._link.progress("opening", command.stream)
        self._opened(command.stream, self._engine.restore(command))

    def _opened(self, stream: int, standing: Standing) -> None:
        self._link.progress("idle", completed=True)
        self._link.answer(Opened(stream, *standing))

    def _run(self, command: Run, descriptors: list[int]) -> None:
        context = RunContext(self._link, command, self._rings.get(command.stream))
        context.at("audio")
        result = self._engine.run(context)
        self._link.progress("idle", command.stream, command.chunk, completed=True)
        identity = (command.stream, command.epoch, command.chunk, result.final)
        if context.ring is None:
            self._link.answer(ChunkDone(*identity))
            return
        frames, height, width, _ = context.shape
        self._link.answer(ChunkDone(*identity, result.state, context.first_frame, frames, height, width,
                                    result.timings or {}, result.stats or {}))  # fmt: skip

    def _close(self, command: Close, descriptors: list[int]) -> None:
        self._engine.close(command.stream)
        self._rings.pop(command.stream, None)
        self._link.forget(command.stream)

    def _forget_clip(self, command: ForgetClip, descriptors: list[int]) -> None:
        self._engine.forget_clip(command.clip)


def read_worker_config(arguments: list[str] | None = None) -> WorkerConfig:
    """The configuration that `--config FILE` names; the file is removed, it is for one start only."""
    parser = argparse.ArgumentParser(prog="livetalk-rank")
    parser.add_argument("--config", type=Path, required=True)
    return read_config_file(parser.parse_args(arguments).config)


def read_config_file(path: Path) -> WorkerConfig:
    """See `read_worker_config`."""
    config = decode_config(WorkerConfig, path.read_bytes(), path.name)
    with contextlib.suppress(OSError):
        path.unlink()
    return config
