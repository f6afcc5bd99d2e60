"""What every rank does with commands, whatever engine it runs: dispatch, cancellation, errors, frames."""

from __future__ import annotations

import argparse
import contextlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import telemetry
from ..config import decode_config
from ..errors import LiveTalkError, ParallelError
from .connection import close_all
from .daemon_config import WorkerConfig
from .frame_ring import FrameRing
from .rank_interface import Line, RankEngine, RunCancelled, RunContext, Standing
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
    Restore,
    Run,
)


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
            telemetry.emit("chunk_left", chunk=chunk, step=stopped.step)
            self._link.answer(ChunkCancelled(stream, command.epoch, chunk, stopped.step))
        except LiveTalkError as error:
            self._link.progress("idle", stream, chunk)
            self._link.fail(to_info(error), fatal=isinstance(error, ParallelError), stream=stream, chunk=chunk)
        except Exception as error:
            # Whatever this was, the process and its device may be in any state: it is replaced.
            text = redact("".join(traceback.format_exception(error)))
            telemetry.LOGGER.error("%s", text.rstrip())
            info = ErrorInfo(
                "worker_failed", redact(f"{type(error).__name__}: {error}"[:2000]),
                "This is a fault of the program, not of the input; the log has the traceback.",
                {"traceback": text[-8000:]},
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
