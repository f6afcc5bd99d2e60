"""The supervisor process: one event loop over clients, ranks and deadlines; no torch, no CUDA."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import selectors
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from .. import telemetry
from ..config import decode_config
from ..errors import DaemonUnavailableError
from .connection import ConnectionEndedError
from .daemon_config import SupervisorConfig
from .engine_group import EngineGroup
from .leases import Leases
from .messages import Stats
from .process_group import Rank
from .processes import started_at
from .requests import Requests
from .runtime_dir import Endpoint, log_directory, write_private
from .scheduler import Scheduler
from .server import Server

_TICK = 0.1
_MAX_LOG = 8 * 2**20
_LOG_CHECK_SECONDS = 30.0


class Supervisor:
    """Owns the ranks, the streams and the door.

    Args:
        config: See `SupervisorConfig`.
    """

    def __init__(self, config: SupervisorConfig) -> None:
        self._config, self._daemon = config, config.daemon
        self._directory = Path(config.directory)
        self._logs = log_directory(self._directory.parent)
        self._selector = selectors.DefaultSelector()
        now = time.monotonic()
        daemon = config.daemon
        self._leases = Leases(
            detached=daemon.detached, grace=daemon.grace, idle_timeout=daemon.idle_timeout, now=now
        )
        self._server = Server(
            self._directory, daemon.key(), self._selector, self._message, self._arrived, self._left,
            (daemon.world_size, daemon.detached), tcp=daemon.transport == "tcp",
        )  # fmt: skip
        self._scheduler = Scheduler(daemon, self._server)
        self._group = EngineGroup(daemon, self._directory, self._logs, self._scheduler)
        self._scheduler.group = self._group
        self._requests = Requests(
            daemon, self._scheduler, self._group, self._server, self.end, lambda: self._server.clients,
            lambda: self._leases.idle(time.monotonic()),
        )
        self._watched: dict[int, Rank] = {}
        self._ending = ""
        self._faulty = False
        self._logs_checked = now

    def run(self) -> None:
        """Serve until the daemon is to end, then leave nothing behind."""
        self._announce()
        try:
            while not self._ending:
                self._turn()
        finally:
            self._finish()

    def end(self, reason: str) -> None:
        """End after the current turn of the loop."""
        self._ending = self._ending or reason

    def _announce(self) -> None:
        pid = os.getpid()
        endpoint = Endpoint(
            key=self._daemon.key(), token=self._server.token.hex(), pid=pid, started=started_at(pid),
            port=self._server.port, daemon=self._daemon,
        )  # fmt: skip
        write_private(self._directory / "endpoint.json", msgspec.json.encode(endpoint))
        if self._config.ready >= 0:
            os.write(self._config.ready, b"1")
            os.close(self._config.ready)

    def _turn(self) -> None:
        self._watch_ranks()
        for key, mask in self._selector.select(_TICK):
            key.data(mask)
        now = time.monotonic()
        self._group.tick(now)
        self._scheduler.tick(now)
        self._server.tick(now)
        self._faulty = self._faulty or self._group.fault is not None
        if self._scheduler.has_work:
            self._leases.worked(now)
        if reason := self._leases.ended(now):
            self.end(reason)
        if now - self._logs_checked > _LOG_CHECK_SECONDS:
            self._logs_checked = now
            self._trim_logs()

    def _watch_ranks(self) -> None:
        """Keep the selector in step with the ranks that are there and with what is queued for them."""
        group = self._group.group
        ranks = {rank.connection.sock.fileno(): rank for rank in (group.ranks if group else [])}
        current = {number: rank for number, rank in ranks.items() if number >= 0 and rank.connected}
        for number, rank in list(self._watched.items()):
            if current.get(number) is not rank:
                # A closed descriptor has left the system's list by itself.
                with contextlib.suppress(KeyError, ValueError, OSError):
                    self._selector.unregister(number)
                del self._watched[number]
        for number, rank in current.items():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if rank.connection.wants_write else 0)
            if number not in self._watched:
                self._selector.register(number, events, lambda mask, rank=rank: self._rank_ready(rank, mask))
                self._watched[number] = rank
            elif self._selector.get_key(number).events != events:
                self._selector.modify(number, events, self._selector.get_key(number).data)

    def _rank_ready(self, rank: Rank, mask: int) -> None:
        if rank.connection.sock.fileno() < 0:
            return
        if mask & selectors.EVENT_WRITE:
            try:
                rank.connection.flush()
            except ConnectionEndedError:
                rank.connected = False
        if mask & selectors.EVENT_READ:
            self._group.receive(rank, time.monotonic())

    def _message(self, client: int, message: Any, descriptors: list[int]) -> None:
        # Looking at a daemon does not keep it alive.
        if not isinstance(message, Stats):
            self._leases.worked(time.monotonic())
        self._requests.handle(client, message, descriptors)

    def _arrived(self, client: int) -> None:
        self._leases.take(client)

    def _left(self, client: int) -> None:
        self._leases.drop(client, time.monotonic())
        self._scheduler.drop_client(client)

    def _trim_logs(self) -> None:
        """Logs are written by append, so that they can be emptied when they have grown long."""
        for path in self._own_logs():
            if path.stat().st_size > _MAX_LOG:
                os.truncate(path, 0)

    def _own_logs(self) -> list[Path]:
        return list(self._logs.glob(f"{self._directory.name}-*.log"))

    def _finish(self) -> None:
        reason = self._ending or "an error"
        telemetry.emit("daemon_ends", reason=reason)
        self._scheduler.fail_all(
            DaemonUnavailableError(f"The daemon ended: {reason}.", "Start it again.")
        )
        self._group.stop(time.monotonic())
        self._server.close()
        while self._group.group is not None:
            time.sleep(0.02)
            self._group.tick(time.monotonic())
        shutil.rmtree(self._directory, ignore_errors=True)
        if not self._faulty and self._ending:
            for path in self._own_logs():
                path.unlink(missing_ok=True)


def main(arguments: list[str] | None = None) -> int:
    """Entry of the process."""
    parser = argparse.ArgumentParser(prog="livetalk-supervisor")
    parser.add_argument("--config", type=Path, required=True)
    path = parser.parse_args(arguments).config
    config = decode_config(SupervisorConfig, path.read_bytes(), path.name)
    path.unlink()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    telemetry.LOGGER.addHandler(handler)
    telemetry.LOGGER.setLevel(logging.INFO)
    supervisor = Supervisor(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: supervisor.end(f"signal {received}"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    supervisor.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
