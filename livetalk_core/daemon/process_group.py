"""One generation of ranks: started together, heard one by one, ended together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from .codec import MAX_BODY
from .connection import Connection, ConnectionEndedError, close_all
from .daemon_config import PACKAGE_ROOT, DaemonConfig, WorkerConfig
from .health import Progress
from .processes import Ladder, Rung, signal_group
from .runtime_dir import write_private
from .wire import redact
from .worker_messages import Command, Outcome, Report, Stop

_TAIL_BYTES = 4000


@dataclass
class Rank:
    """One rank's process.

    Attributes:
        outcome: What it answered to the command that runs.
    """

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection[Report]
    progress: Progress
    log: Path
    ready: bool = False
    connected: bool = True
    outcome: Outcome | None = None

    def log_tail(self) -> str:
        """The end of what the rank wrote to its log, without secrets."""
        with contextlib.suppress(OSError), open(self.log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return redact(file.read().decode("utf-8", "replace").strip())
        return ""


class ProcessGroup:
    """N ranks.

    Args:
        config: The daemon.
        directory: Its runtime folder: the ranks' working directory.
        logs: Folder of the logs.
        generation: Counts the groups of this daemon.
        now: Time.

    Raises:
        OSError: a process cannot be started; those that were are ended.
    """

    def __init__(self, config: DaemonConfig, directory: Path, logs: Path, generation: int, now: float) -> None:
        self._config, self._directory, self._logs, self._generation = config, directory, logs, generation
        self.ranks: list[Rank] = []
        self._ladder: Ladder | None = None
        # Its writing end lives and dies with this process; nobody writes to it.
        alive_read, self._alive_write = os.pipe2(os.O_CLOEXEC)
        try:
            # On several hosts rank 0 answers for all; the launcher watches over those of this host.
            for number in range(config.world_size if config.hosts is None else 1):
                self.ranks.append(self._start(number, alive_read, now))
        except OSError:
            self.kill()
            self.close()
            raise
        finally:
            os.close(alive_read)

    def send(self, command: Command, descriptors: dict[int, list[int]] | None = None) -> None:
        """Send a command to every rank, with each rank's descriptors; a dead rank is noticed elsewhere."""
        for rank in self.ranks:
            if rank.connected:
                given = (descriptors or {}).get(rank.number, [])
                try:
                    rank.connection.send(command, given)
                except ConnectionEndedError:
                    rank.connected = False

    def dead(self) -> Rank | None:
        """A rank whose process has ended; one that was ended by a signal first."""
        ended = [rank for rank in self.ranks if rank.process.poll() is not None]
        # After a rank's death its neighbours often fail on the broken connection: a signal is the cause.
        ended.sort(key=lambda rank: (rank.process.returncode or 0) >= 0)
        return ended[0] if ended else None

    def stop(self, now: float, rung: Rung = "message") -> None:
        """Begin to end all ranks; "sigkill" leaves out the friendly rungs."""
        if rung == "sigkill":
            self.kill()
            self._ladder = Ladder(self._processes, 0.0, 0.0, now)
            self._ladder.rung = "sigkill"
            return
        deadlines = self._config.deadlines
        self.send(Stop())
        self._ladder = Ladder(self._processes, deadlines.stop, deadlines.terminate, now)

    def abort(self, number: int) -> None:
        """Make a rank that hangs write where it stands; a stopped process has to be woken for that."""
        signal_group(self.ranks[number].process, signal.SIGABRT)
        signal_group(self.ranks[number].process, signal.SIGCONT)

    def kill(self) -> None:
        """End all ranks at once."""
        for rank in self.ranks:
            signal_group(rank.process, signal.SIGKILL)

    def gone(self, now: float) -> bool:
        """Whether all ranks have ended, after `stop`."""
        return self._ladder is None or self._ladder.gone(now)

    @property
    def rung(self) -> Rung:
        """How far `stop` had to go."""
        return "" if self._ladder is None else self._ladder.rung

    def close(self) -> None:
        """Free everything after the ranks have ended."""
        for rank in self.ranks:
            rank.connection.close()
        with contextlib.suppress(OSError):
            os.close(self._alive_write)
        # Ranks that were killed while they met leave their sockets beside the file.
        for path in (self.rendezvous, *self._directory.glob(f"{self.rendezvous.name}.*")):
            path.unlink(missing_ok=True)

    @property
    def rendezvous(self) -> Path:
        """File over which the ranks find each other."""
        return self._directory / f"rendezvous-{self._generation}"

    @property
    def _processes(self) -> list[subprocess.Popen[bytes]]:
        return [rank.process for rank in self.ranks]

    def _start(self, number: int, alive: int, now: float) -> Rank:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        log = self._logs / f"{self._directory.name}-rank{number}.log"
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            hosts, worker = self._config.hosts, self._config.worker
            # A launcher closes what it does not know before it starts a rank, but it hands on its standard input.
            kept = (theirs.fileno(), alive) if hosts is None else ()
            command = [sys.executable, "-m", worker] if hosts is None else hosts.command(0, worker, self._config.device)
            process = subprocess.Popen(
                [*command, "--config", self._write_config(number, theirs, alive)],
                cwd=self._directory, env=module_environment(self._config.worker_path), start_new_session=True,
                pass_fds=kept, stdin=subprocess.DEVNULL if hosts is None else theirs.fileno(),
                stdout=output, stderr=output,
            )  # fmt: skip
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            close_all([output])
        connection: Connection[Report] = Connection(ours, Report, MAX_BODY)
        return Rank(number, process, connection, Progress(now, now), log)

    def _write_config(self, number: int, theirs: socket.socket, alive: int) -> str:
        config = self._config
        near = config.hosts is None
        settings = WorkerConfig(
            rank=number, world_size=config.world_size, control=theirs.fileno() if near else 0,
            alive=alive if near else -1, parent=os.getpid() if near else 0,
            rendezvous=str(self.rendezvous) if near else "", hosts=config.hosts,
            generation=self._generation, model=config.model, revision=config.revision, device=config.device,
            dtype=config.dtype, attention=config.attention, compile=config.compile, options=config.options,
            patience=_patience(config),
        )  # fmt: skip
        path = self._directory / f"rank{number}.json"
        write_private(path, json.dumps(msgspec.to_builtins(settings)).encode())
        return str(path)


def _patience(config: DaemonConfig) -> float:
    """The supervisor ends a hang long before; this bounds it where nobody supervises."""
    deadlines = config.deadlines
    slowest = max(deadlines.load, deadlines.compile if config.compile else 0.0, deadlines.first_chunk)
    return slowest + deadlines.step


def module_environment(extra: tuple[str, ...] = ()) -> dict[str, str]:
    """Environment in which `python -m livetalk_core...` finds this package, whatever the folder holds."""
    path = os.pathsep.join([*extra, str(PACKAGE_ROOT)])
    return {**os.environ, "PYTHONSAFEPATH": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
