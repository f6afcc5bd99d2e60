"""Which stream computes next, and what becomes of its chunk: committed and delivered once, or made again."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from ..errors import LiveTalkError, StreamDroppedError, WorkerFailedError
from .daemon_config import DaemonConfig
from .engine_group import EngineGroup, Outcomes, State
from .frame_ring import read_only
from .messages import AudioEncoded, Cancelled, Failed, Health, ModelLoaded, Progress, StreamEnded, StreamOpened
from .streams import SoundBacklog, StreamRecord
from .tasks import Clip, Task, next_task
from .wire import to_info
from .worker_messages import (
    Beat,
    CancelRun,
    ChunkCancelled,
    ChunkDone,
    Close,
    Encode,
    Encoded,
    ForgetClip,
    Opened,
    Restore,
    Run,
)


class Outbox(Protocol):
    """Where messages to clients go; a client that has left gets nothing."""

    def send(self, client: int, message: Any, descriptors: Sequence[int] = ()) -> None:
        """To one client."""

    def broadcast(self, message: Any) -> None:
        """To all clients."""


class Scheduler:
    """All streams and clips; hands the engine one command after the other (see `GroupListener`).

    Args:
        config: The daemon.
        outbox: Where answers and events go.
    """

    def __init__(self, config: DaemonConfig, outbox: Outbox) -> None:
        self._config, self._outbox = config, outbox
        self.streams: dict[int, StreamRecord] = {}
        self.clips: dict[int, Clip] = {}
        self.waiting_load: list[tuple[int, int]] = []
        self.chunks = 0
        self.group: EngineGroup
        self._turn: deque[int] = deque()

    @property
    def has_work(self) -> bool:
        """Whether ranks are needed."""
        live = any(each.error is None for each in self.streams.values())
        return bool(self.waiting_load or self.clips or live)

    def add(self, record: StreamRecord) -> None:
        """Take a stream in."""
        self.streams[record.number] = record
        self._turn.append(record.number)

    def tick(self, now: float) -> None:
        """Start the next command, give up streams whose reader stands still."""
        if self.group.state == "stopped" and self._wants_ranks():
            self.group.ensure(now)
        for record in list(self.streams.values()):
            self._check_reader(record, now)
        if self.group.idle:
            task = next(self._tasks(), None)
            if task is not None:
                self.group.run(task)

    def cancel(self, record: StreamRecord, request: int) -> None:
        """Begin a new epoch of a stream; answered when no rank works on the old one."""
        if self._runs(record):
            self.group.tell(CancelRun(record.number, record.epoch))
            record.cancel_requests.append(request)
        record.cancel()
        record.blocked_since = None
        if not record.cancel_requests:
            self._outbox.send(record.client, Cancelled(request, record.number, record.epoch))
        self._answer(record)

    def close(self, record: StreamRecord) -> None:
        """Forget a stream; what it computes is stopped."""
        if self._runs(record):
            self.group.tell(CancelRun(record.number, record.epoch))
        self._free(record)
        del self.streams[record.number]

    def drop_client(self, client: int) -> None:
        """Forget everything of a client that has left."""
        for record in [each for each in self.streams.values() if each.client == client]:
            self.close(record)
        for clip in [each for each in self.clips.values() if each.client == client]:
            del self.clips[clip.number]
            self.group.tell(ForgetClip(clip.number))
        self.waiting_load = [each for each in self.waiting_load if each[0] != client]

    def ask(self, record: StreamRecord, request: int) -> None:
        """The client wants the next chunk."""
        record.asked = request
        self._answer(record)

    def fail_all(self, error: LiveTalkError) -> None:
        """Nothing of what was asked for will come."""
        for client, request in self.waiting_load:
            self._outbox.send(client, Failed(request, to_info(error)))
        self.waiting_load.clear()
        for record in list(self.streams.values()):
            self._fail(record, error)
        for clip in list(self.clips.values()):
            self._fail_clip(clip, error)

    def group_changed(self, state: State, error: LiveTalkError | None) -> None:
        """See `GroupListener`."""
        info = None if error is None else to_info(error)
        self._outbox.broadcast(Health(state, self.group.budget.total, info))
        if state == "ready":
            for client, request in self.waiting_load:
                self._outbox.send(client, ModelLoaded(request, self.group.model))
            self.waiting_load.clear()
        elif error is not None and state != "restarting":
            self.fail_all(error)

    def step_done(self, beat: Beat) -> None:
        """See `GroupListener`."""
        message = Progress(beat.stream, beat.phase, beat.chunk, beat.step, beat.steps)
        record = self.streams.get(beat.stream)
        if record is not None:
            self._outbox.send(record.client, message)
        elif beat.stream == 0:
            self._outbox.broadcast(message)

    def task_done(self, task: Task, outcomes: Outcomes) -> None:
        """See `GroupListener`."""
        command, first = task.command, outcomes[0]
        if isinstance(command, Encode):
            self._encoded(command.clip, first)
            return
        record = self.streams.get(task.stream)
        if record is None:  # closed meanwhile; the ranks were told, or open it only now
            self.group.tell(Close(task.stream))
        elif isinstance(command, Run):
            self._ran(record, command, outcomes)
        elif isinstance(command, Restore):
            record.stale = command.state != record.position.state
        elif isinstance(first, Opened):
            self._opened(record, first)

    def task_failed(self, task: Task, error: LiveTalkError, *, blame: bool) -> None:
        """See `GroupListener`."""
        if isinstance(task.command, Encode):
            clip = self.clips.get(task.command.clip)
            if clip is not None and blame:
                self._fail_clip(clip, error)
            return
        record = self.streams.get(task.stream)
        if record is None:
            return
        record.abandon()
        self._answer_cancels(record, -1)
        if blame:
            self._fail(record, error)

    def _wants_ranks(self) -> bool:
        unfinished = any(each.error is None and not each.finished() for each in self.streams.values())
        pending = any(each.request is not None for each in self.clips.values())
        return bool(self.waiting_load or pending or unfinished)

    def _runs(self, record: StreamRecord) -> bool:
        task = self.group.task
        return task is not None and task.stream == record.number and isinstance(task.command, Run)

    def _tasks(self) -> Iterator[Task]:
        """What could be done next, the most urgent first; asked for the first only."""
        for clip in self.clips.values():
            if clip.request is not None and clip.resident != self.group.generation:
                yield clip.encoding()
        ranks = self._config.world_size
        for _ in range(len(self._turn)):
            number = self._turn[0]
            self._turn.rotate(-1)
            record = self.streams.get(number)
            if record is None:
                self._turn.remove(number)
            elif (task := next_task(record, self.clips.get(record.clip), self.group.generation, ranks)) is not None:
                yield task

    def _opened(self, record: StreamRecord, opened: Opened) -> None:
        record.resident, record.opened = self.group.generation, True
        if record.open_request is not None:
            record.stand(opened.chunk, opened.samples, opened.ended)
            request, record.open_request = record.open_request, None
            descriptor = read_only(record.ring)
            answer = StreamOpened(request, record.number, record.epoch, record.slots, record.slot_bytes,
                                  opened.chunk, opened.samples)  # fmt: skip
            self._outbox.send(record.client, answer, [descriptor])
            os.close(descriptor)

    def _encoded(self, number: int, first: Any) -> None:
        clip = self.clips.get(number)
        if clip is None:
            self.group.tell(ForgetClip(number))
            return
        clip.resident = self.group.generation
        if clip.request is not None and isinstance(first, Encoded):
            self._outbox.send(clip.client, AudioEncoded(clip.request, number, first.frames))
        clip.request = None

    def _ran(self, record: StreamRecord, command: Run, outcomes: Outcomes) -> None:
        first = outcomes[0]
        if record.epoch != command.epoch:
            # Barge-in: whatever came of it is dropped; a rank that finished is ahead of the others.
            record.stale = record.stale or any(isinstance(each, ChunkDone) for each in outcomes.values())
            record.abandon()
            steps = [each.step for each in outcomes.values() if isinstance(each, ChunkCancelled)]
            self._answer_cancels(record, max(steps, default=-1))
        elif isinstance(first, ChunkDone) and all(_same_chunk(each, command) for each in outcomes.values()):
            record.commit(first)
            self.chunks += 1
        else:
            record.abandon()
            self._fail(record, WorkerFailedError(f"The ranks do not agree about chunk {command.chunk}."))
        self._answer(record)

    def _answer(self, record: StreamRecord) -> None:
        """Answer the client's request for a chunk, if that can be done."""
        if record.asked is None:
            return
        answer: Any = record.deliver(record.asked)
        if answer is None and record.error is not None:
            answer = Failed(record.asked, to_info(record.error), record.number)
        elif answer is None and record.finished():
            answer = StreamEnded(record.asked, record.number, record.epoch, record.position.chunk)
        if answer is not None:
            record.asked = None
            self._outbox.send(record.client, answer)

    def _answer_cancels(self, record: StreamRecord, step: int) -> None:
        for request in record.cancel_requests:
            self._outbox.send(record.client, Cancelled(request, record.number, record.epoch, step))
        record.cancel_requests.clear()

    def _check_reader(self, record: StreamRecord, now: float) -> None:
        blocked = record.opened and not record.free and record.next_sound() is not None
        if not blocked:
            record.blocked_since = None
        elif record.blocked_since is None:
            record.blocked_since = now
        elif now - record.blocked_since > self._config.deadlines.reader:
            limit = self._config.deadlines.reader
            self._fail(record, StreamDroppedError(
                f"The stream was dropped: nobody took its frames for {limit:g} s.",
                "Read faster, or raise the setting deadlines.reader.", chunk=record.position.chunk,
            ))  # fmt: skip
            record.close()

    def _fail(self, record: StreamRecord, error: LiveTalkError) -> None:
        """A stream ends with an error: said at once, and again when all chunks made before are delivered."""
        if record.error is not None:
            return
        record.error = error
        request = record.open_request if record.open_request is not None else record.asked
        record.open_request = record.asked = None
        self._outbox.send(record.client, Failed(request or 0, to_info(error), record.number))
        self._answer_cancels(record, -1)
        self.group.tell(Close(record.number))
        record.sound = SoundBacklog()

    def _free(self, record: StreamRecord) -> None:
        self.group.tell(Close(record.number))
        record.close()

    def _fail_clip(self, clip: Clip, error: LiveTalkError) -> None:
        """A clip cannot be encoded: whoever waits for it hears of it, and the streams that speak it."""
        del self.clips[clip.number]
        if clip.request is not None:
            self._outbox.send(clip.client, Failed(clip.request, to_info(error)))
        for record in [each for each in self.streams.values() if each.clip == clip.number]:
            self._fail(record, error)


def _same_chunk(outcome: Any, command: Run) -> bool:
    told = (command.stream, command.epoch, command.chunk)
    return isinstance(outcome, ChunkDone) and (outcome.stream, outcome.epoch, outcome.chunk) == told
