"""The engine as the supervisor sees it: one command at a time, carried out by all ranks or by none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, Protocol

from .. import __version__, telemetry
from ..errors import (
    DaemonUnavailableError,
    LiveTalkError,
    ProtocolError,
    WorkerFailedError,
    WorkerHungError,
)
from .connection import Connection, ConnectionEndedError
from .daemon_config import DaemonConfig
from .fault_reports import at_rank, death, hang
from .messages import ModelInfo
from .process_group import ProcessGroup, Rank
from .restart_budget import RestartBudget
from .runtime_dir import cannot_start
from .tasks import Task
from .worker_messages import Beat, CancelRun, Command, Failure, Load, Loaded, Ready, Report

State = Literal["stopped", "starting", "loading", "ready", "stopping", "restarting", "dead"]
Outcomes = dict[int, Report]


class GroupListener(Protocol):
    """Who wants to know."""

    def group_changed(self, state: State, error: LiveTalkError | None) -> None:
        """The group is in another state; `error` is the fault that led there."""

    def task_done(self, task: Task, outcomes: Outcomes) -> None:
        """Every rank has answered and none with an error."""

    def task_failed(self, task: Task, error: LiveTalkError, *, blame: bool) -> None:
        """The task was not carried out. `blame`: its own error; otherwise the group broke under it."""

    def step_done(self, beat: Beat) -> None:
        """Rank 0 completed a piece of work."""


class EngineGroup:
    """Starts the ranks, loads the model, watches them and replaces them within the budget.

    Args:
        config: The daemon.
        directory, logs: Runtime folder and folder of the logs.
        listener: Is told what happens.
    """

    def __init__(self, config: DaemonConfig, directory: Path, logs: Path, listener: GroupListener) -> None:
        self._config, self._directory, self._logs, self._listener = config, directory, logs, listener
        self.state: State = "stopped"
        self.budget = RestartBudget(config.restarts, config.restart_window)
        self.fault: LiveTalkError | None = None
        self.model = ModelInfo()
        self.generation = 0
        self.rung = ""
        self.group: ProcessGroup | None = None
        self.task: Task | None = None
        self._was_ready = False
        self._kill_at: float | None = None
        self._then: State = "stopped"

    @property
    def idle(self) -> bool:
        """Whether the model is loaded and no command runs."""
        return self.state == "ready" and self.task is None

    def ensure(self, now: float) -> None:
        """Start the ranks unless they are there or on their way.

        Raises:
            DaemonUnavailableError: the group was given up.
        """
        if self.state == "dead":
            reason = f" The last fault: {self.fault}" if self.fault else ""
            raise DaemonUnavailableError(
                f"The ranks failed more than {self.budget.limit} times in {self.budget.window:g} s "
                f"and are not started again.{reason}",
                "Stop the daemon, remove the cause and start it again.",
            )
        if self.state == "stopping" and self._then == "stopped":
            self._then = "starting"
        if self.state == "stopped":
            self._start(now)

    def run(self, task: Task) -> None:
        """Give all ranks a command; only when `idle`."""
        assert self.group is not None
        self.task = task
        for rank in self.group.ranks:
            rank.outcome = None
        self.group.send(task.command, task.descriptors)

    def tell(self, command: Command) -> None:
        """Send a command that is not answered (cancel, close); nothing if there are no ranks."""
        if self.group is not None and self.state in ("loading", "ready"):
            self.group.send(command)

    def stop(self, now: float) -> None:
        """End the ranks the friendly way."""
        if self.group is not None and self.state not in ("stopping", "restarting"):
            self._drop_task(WorkerFailedError("The model was unloaded."))
            self._was_ready = False
            self._end(now, "stopped")
        elif self.state in ("stopping", "restarting"):
            self._then = "stopped"

    def receive(self, rank: Rank, now: float) -> None:
        """Read what a rank sent."""
        connection: Connection[Report] = rank.connection
        try:
            for message, descriptors in connection.receiver.read():
                if descriptors:
                    raise ProtocolError("Ranks send no descriptors.")
                self._take(rank, message, now)
        except BlockingIOError:
            return
        except ConnectionEndedError:
            rank.connected = False
        except ProtocolError as error:
            self._fail(WorkerFailedError(f"Rank {rank.number}: {error}", rank=rank.number), now)

    def tick(self, now: float) -> None:
        """Notice deaths and deadlines, and go on with what is under way."""
        if self.group is None:
            return
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.group.stop(now, "sigkill")
        if self.state in ("stopping", "restarting"):
            if self._kill_at is None and self.group.gone(now):
                self._ended(now)
        elif (error := self._find_fault(now)) is not None:
            self._fail(error, now)
        elif (error := self._straggling(now)) is not None:
            self._fail(error, now, blame=True)

    def _start(self, now: float) -> None:
        self.generation += 1
        try:
            self.group = ProcessGroup(self._config, self._directory, self._logs, self.generation, now)
        except OSError as error:
            self._change("stopped", cannot_start(error, self._directory.parent))
            return
        self._change("starting")

    def _take(self, rank: Rank, message: Report, now: float) -> None:
        if isinstance(message, Beat):
            if rank.progress.update(message, now) and rank.number == 0:
                self._listener.step_done(message)
            return
        rank.progress.heard = now
        if isinstance(message, Ready):
            self._take_ready(rank, message, now)
            return
        rank.outcome = message
        if isinstance(message, Failure):
            self._take_failure(rank, message, now)
        self._finish_task(now)

    def _take_ready(self, rank: Rank, message: Ready, now: float) -> None:
        if (message.rank, message.version) != (rank.number, __version__):
            error = ProtocolError(f"Rank {rank.number} runs version {message.version}, the daemon {__version__}.")
            self._fail(error, now, counted=False)
            return
        rank.ready = True
        group = self.group
        if self.state == "starting" and group is not None and all(each.ready for each in group.ranks):
            self._change("loading")
            self.run(Task(Load()))

    def _take_failure(self, rank: Rank, message: Failure, now: float) -> None:
        telemetry.emit("rank_error", logging.WARNING, rank=rank.number, error=message.error.message)
        if self.task is None:
            self._fail(at_rank(rank, message), now)
            return
        if self.task.failed_at is None:
            self.task.failed_at = now
            # The others may still be able to leave the chunk in order.
            if self.task.stream and self.group is not None:
                self.group.send(CancelRun(self.task.stream, 2**31 - 1))

    def _finish_task(self, now: float) -> None:
        """If all ranks have answered: done, or failed with the first rank's error that is not a consequence."""
        task, group = self.task, self.group
        if task is None or group is None or any(rank.outcome is None for rank in group.ranks):
            return
        failed = [rank for rank in group.ranks if isinstance(rank.outcome, Failure)]
        if not failed:
            self.task = None
            outcomes: Outcomes = {rank.number: rank.outcome for rank in group.ranks if rank.outcome is not None}
            if isinstance(task.command, Load):
                self._loaded(outcomes)
            else:
                self._listener.task_done(task, outcomes)
            return
        error, fatal = self._worst(failed)
        if fatal:
            self._fail(error, now, blame=True)
        elif isinstance(task.command, Load):
            # Nothing to restart for: the files or settings are wrong.
            self._was_ready = False
            self._fail(error, now, blame=True, counted=False)
        else:
            self.task = None
            self._listener.task_failed(task, error, blame=True)

    def _loaded(self, outcomes: Outcomes) -> None:
        first = outcomes[0]
        if isinstance(first, Loaded):
            self.model = first.model
        self._was_ready, self.fault = True, None
        self._change("ready")

    def _worst(self, failed: list[Rank]) -> tuple[LiveTalkError, bool]:
        """The error to show, and whether any rank must not be used any more."""
        reports = [(rank, rank.outcome) for rank in failed if isinstance(rank.outcome, Failure)]
        fatal = any(report.fatal for _, report in reports)
        rank, report = next(((r, f) for r, f in reports if f.fatal), reports[0])
        return at_rank(rank, report), fatal

    def _find_fault(self, now: float) -> LiveTalkError | None:
        """A rank that is dead, silent or too slow, as the error that says so."""
        assert self.group is not None
        if (dead := self.group.dead()) is not None:
            return death(dead, starting=self.state == "starting")
        for rank in self.group.ranks:
            overdue = rank.progress.overdue(self._config.deadlines, now)
            if overdue is not None:
                return self._hang(rank, *overdue, now)
        return None

    def _straggling(self, now: float) -> LiveTalkError | None:
        """The error of a rank whose neighbours do not get out of the command: they wait in a collective."""
        task = self.task
        if task is None or task.failed_at is None or self.group is None:
            return None
        if now - task.failed_at <= self._config.deadlines.failure_grace:
            return None
        return self._worst([rank for rank in self.group.ranks if isinstance(rank.outcome, Failure)])[0]

    def _hang(self, rank: Rank, setting: str, limit: float, now: float) -> LiveTalkError:
        error = hang(rank, setting, limit)
        if isinstance(error, WorkerHungError):
            assert self.group is not None
            self.group.abort(rank.number)
            self._kill_at = now + self._config.deadlines.abort
        return error

    def _fail(self, error: LiveTalkError, now: float, *, blame: bool = False, counted: bool = True) -> None:
        """The group cannot be used any more: end it and decide what follows.

        Args:
            error: Why.
            now: Time.
            blame: Whether it is the running task's own error.
            counted: Whether it uses up the budget and may be followed by a restart.
        """
        if self.state in ("stopping", "restarting", "dead"):
            return
        self.fault = error
        left = self.budget.take(now) if counted else True
        again = self._was_ready and counted
        self._then = "dead" if not left else "starting" if again else "stopped"
        self._drop_task(error, blame=blame)
        self._end(now, "restarting" if self._then == "starting" else "stopping", error)

    def _drop_task(self, error: LiveTalkError, *, blame: bool = False) -> None:
        task, self.task = self.task, None
        if task is not None and not isinstance(task.command, Load):
            self._listener.task_failed(task, error, blame=blame)

    def _end(self, now: float, state: State, error: LiveTalkError | None = None) -> None:
        assert self.group is not None
        if state == "stopped":
            self._then, state = "stopped", "stopping"
            self.group.stop(now)
        elif self._kill_at is None:
            # The others may be stuck in a collective: nothing friendly reaches them.
            self.group.stop(now, "sigkill")
        self._change(state, error)

    def _ended(self, now: float) -> None:
        assert self.group is not None
        self.rung = self.group.rung
        self.group.close()
        self.group = None
        telemetry.emit("ranks_ended", rung=self.rung, then=self._then)
        if self._then == "starting":
            self._start(now)
        else:
            self._change(self._then, self.fault if self._then == "dead" else None)

    def _change(self, state: State, error: LiveTalkError | None = None) -> None:
        self.state = state
        telemetry.emit("ranks", state=state, error=None if error is None else str(error))
        self._listener.group_changed(state, error)
