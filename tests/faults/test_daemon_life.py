"""How daemons begin and end: joined, owned, detached, idle, killed; never two, never one too many."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fakes.daemons import (
    CONFIG,
    assert_all_gone,
    daemon_config,
    program,
    running,
    sound,
    wait_until,
)

from livetalk_core.daemon import launch
from livetalk_core.daemon.client import Client
from livetalk_core.daemon.runtime_dir import Endpoint, hold_alive, is_alive, make_directory, write_private
from livetalk_core.errors import ConfigError, DaemonUnavailableError, LiveTalkError, StreamDroppedError

pytestmark = pytest.mark.faults

_CLIENT = """
import time
from pathlib import Path
from fakes.daemons import CONFIG, daemon_config, sound
from livetalk_core.daemon.client import Client
client = Client.start_or_join(daemon_config(Path({root!r}), detached={detached}))
stream = client.open_stream(CONFIG, b"picture")
stream.push_audio(sound(3))
stream.next_chunk(30)
print(client.welcome.pid, flush=True)
time.sleep(100)
"""


def _client_process(root: Path, *, detached: bool) -> tuple[subprocess.Popen[str], int]:
    process = program(_CLIENT.format(root=str(root), detached=detached))
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_killed_client_ends_its_owned_daemon(tmp_path: Path) -> None:
    process, _ = _client_process(tmp_path, detached=False)
    process.kill()
    began = time.monotonic()
    process.wait()
    assert_all_gone(tmp_path, 8)
    assert time.monotonic() - began < 8


def test_killed_client_frees_its_stream_and_leaves_a_detached_daemon(tmp_path: Path) -> None:
    process, pid = _client_process(tmp_path, detached=True)
    process.kill()
    process.wait()
    config = daemon_config(tmp_path, detached=True)
    client = Client.start_or_join(config)
    assert client.welcome.pid == pid and client.welcome.detached
    wait_until(lambda: client.stats().streams == 0, 5, "the stream is freed")
    assert client.stats().ring_bytes == 0
    with client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(1))
        assert stream.next_chunk(30).index == 0
    client.shutdown()
    assert_all_gone(tmp_path)


def test_daemon_may_be_joined_from_fewer_cores_than_starting_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = daemon_config(tmp_path, world=5)
    # Whatever machine this runs on: two cores to start with, then one.
    monkeypatch.setattr(launch, "usable_cores", lambda: 2)
    with Client.start_or_join(config) as first:
        monkeypatch.setattr(launch, "usable_cores", lambda: 1)
        with Client.start_or_join(config) as second:
            assert second.welcome.pid == first.welcome.pid
        with pytest.raises(ConfigError, match="6 ranks are more than the 1 processor core"):
            Client.start_or_join(daemon_config(tmp_path, world=6))


def test_thread_that_started_the_daemon_may_end(tmp_path: Path) -> None:
    clients: list[Client] = []
    thread = threading.Thread(target=lambda: clients.append(Client.start_or_join(daemon_config(tmp_path))))
    thread.start()
    thread.join()
    (client,) = clients
    with client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(1))
        assert stream.next_chunk(30).index == 0
    assert client.stats().restarts == 0
    client.close()
    assert_all_gone(tmp_path)


def test_two_at_once_share_one_daemon(tmp_path: Path) -> None:
    clients: list[Client] = []
    start = threading.Barrier(4)

    def join() -> None:
        start.wait()
        clients.append(Client.start_or_join(daemon_config(tmp_path)))

    threads = [threading.Thread(target=join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 4 and len({client.welcome.pid for client in clients}) == 1
    assert len(list(tmp_path.glob("????????"))) == 1
    clients[0].close()
    clients[1].load_model()
    assert clients[1].stats().clients == 3, "a co-owner keeps the daemon"
    for client in clients[1:]:
        client.close()
    assert_all_gone(tmp_path)


def test_other_settings_are_another_daemon(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as first:
        other = Client.start_or_join(daemon_config(tmp_path, world=1))
        assert other.welcome.pid != first.welcome.pid
        other.close()


def test_idle_daemon_ends(tmp_path: Path) -> None:
    client = Client.start_or_join(daemon_config(tmp_path, detached=True, idle_timeout=1.0))
    client.close()
    assert_all_gone(tmp_path)


def test_everything_fails_at_once_after_shutdown(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client:
        stream = client.open_stream(CONFIG, b"picture")
        client.shutdown()
        for call in (client.stats, client.load_model, lambda: stream.next_chunk(5)):
            with pytest.raises(DaemonUnavailableError):
                call()


def test_sigterm_ends_the_daemon_in_order(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client:
        stream = client.open_stream(CONFIG, b"picture")
        os.kill(client.welcome.pid, signal.SIGTERM)
        with pytest.raises(LiveTalkError):
            stream.next_chunk(10)


def test_streams_fail_when_the_model_is_unloaded(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client:
        stream = client.open_stream(CONFIG, b"picture")
        client.unload()
        with pytest.raises(StreamDroppedError, match="unloaded"):
            stream.next_chunk(5)
        client.load_model()


def test_supervisor_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "module_environment", lambda: {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"})
    monkeypatch.setattr(sys, "executable", "/usr/bin/false")
    with pytest.raises(DaemonUnavailableError, match="ended while it started"):
        Client.start_or_join(daemon_config(tmp_path))
    assert not list(tmp_path.glob("????????"))


def test_number_of_a_dead_daemon_does_not_harm_who_has_it_now(tmp_path: Path) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        directory = make_directory(tmp_path)
        lock = hold_alive(directory)  # even a living folder with a wrong number must not lead to a signal
        endpoint = Endpoint(key=daemon_config(tmp_path).key(), token="00" * 32, pid=innocent.pid, started=12345)
        write_private(directory / "endpoint.json", __import__("msgspec").json.encode(endpoint))
        assert launch.force_stop(directory) == "sigterm"
        assert innocent.poll() is None
        os.close(lock)
        assert not is_alive(directory)
        with running(daemon_config(tmp_path)) as client:
            assert client.welcome.pid != innocent.pid
            assert not directory.exists(), "a folder that nobody holds is removed"
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


def test_daemon_that_does_not_answer_is_ended_by_force(tmp_path: Path) -> None:
    client = Client.start_or_join(daemon_config(tmp_path, detached=True))
    os.kill(client.welcome.pid, signal.SIGSTOP)
    ((directory, _),) = launch.living(tmp_path)
    assert launch.force_stop(directory, patience=0.5) == "sigkill"
    client.close()
    assert_all_gone(tmp_path)
