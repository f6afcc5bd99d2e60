"""Who gets into a running daemon, what strangers can cost it, and what it never tells."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes.daemons import CONFIG, SCALE, daemon_config, expected_frames, processes_of, running, sound, wait_until
from fakes.faults import fail_at

from livetalk_core import __version__
from livetalk_core.daemon import launch, server
from livetalk_core.daemon.client import Client
from livetalk_core.daemon.codec import HEADER, encode
from livetalk_core.daemon.messages import Hello, Stats
from livetalk_core.daemon.runtime_dir import Endpoint, read_endpoint, socket_path
from livetalk_core.errors import AccessError, ConfigError, DaemonUnavailableError, LiveTalkError, StreamDroppedError

pytestmark = pytest.mark.security


class Door:
    """A running daemon and raw ways to knock at it."""

    def __init__(self, client: Client, root: Path) -> None:
        self.client, self.root = client, root
        ((self.directory, self.endpoint),) = launch.living(root)
        assert isinstance(self.endpoint, Endpoint)
        self.token = bytes.fromhex(self.endpoint.token)
        self.hello = encode(Hello(1, __version__, self.endpoint.key))

    def knock(self, data: bytes = b"") -> socket.socket:
        """A raw connection on which these bytes were sent."""
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(10)
            sock.connect(socket_path(self.directory))
            sock.sendall(data)
        except OSError:
            sock.close()
            raise
        return sock

    def refused(self, data: bytes) -> bool:
        """Whether the connection is closed without an answer."""
        with self.knock(data) as sock:
            try:
                return sock.recv(100) == b""
            except ConnectionResetError:
                return True

    def serves(self) -> bool:
        """Whether the client is still served."""
        return self.client.stats(timeout=10).clients >= 1

    def logs(self) -> str:
        """All that was logged so far."""
        return "".join(path.read_text() for path in (self.root / "logs").iterdir())


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    root = tmp_path_factory.mktemp("door")
    with running(daemon_config(root, world=1)) as client:
        client.load_model()
        yield Door(client, root)


def test_wrong_token_is_refused_before_anything_is_read(door: Door) -> None:
    wrong = bytes([door.token[0] ^ 1]) + door.token[1:]
    for token in (wrong, bytes(32), os.urandom(32)):
        assert door.refused(token + door.hello)
    assert door.refused(wrong + b"\xff" * 100)
    assert door.serves()
    assert "wrong token" in door.logs()


def test_right_token_and_hello_are_let_in(door: Door) -> None:
    with door.knock(door.token + door.hello) as sock:
        assert b"Welcome" in sock.recv(200)
        sock.sendall(door.hello)
        assert sock.recv(200) == b"", "a second Hello is no message"


@pytest.mark.parametrize("data", [b"", encode(Stats(1)), HEADER.pack(b"LVTK", 1, 0, 0, 5000), b"\x80\x04\x95."])
def test_first_message_must_be_hello(door: Door, data: bytes) -> None:
    with door.knock(door.token + data) as sock:
        began = time.monotonic()
        assert sock.recv(100) == b""
        assert time.monotonic() - began < server.HANDSHAKE_SECONDS + 2
    assert door.serves()


def test_client_of_another_version_or_for_other_settings_is_told(door: Door) -> None:
    for hello in (Hello(1, "0.0.0", door.endpoint.key), Hello(1, __version__, "0" * 16)):
        with door.knock(door.token + encode(hello)) as sock:
            assert b"daemon_unavailable" in sock.recv(1000)
            assert sock.recv(100) == b""


def test_program_too_many_is_told(door: Door) -> None:
    with contextlib.ExitStack() as life:
        for _ in range(server.MAX_CLIENTS - door.client.stats().clients):
            sock = life.enter_context(door.knock(door.token + door.hello))
            assert b"Welcome" in sock.recv(200)
        with door.knock(door.token + door.hello) as sock:
            assert b"32 programs use this daemon" in sock.recv(1000)
            assert sock.recv(100) == b""
    wait_until(lambda: door.client.stats().clients == 1, 5, "they have left")


def test_another_user_is_refused(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    assert server._same_user(left)
    monkeypatch.setattr(server.os, "getuid", lambda: os.geteuid() + 1)
    assert not server._same_user(left)
    left.close()
    right.close()


def test_slow_strangers_are_shown_out(door: Door) -> None:
    slow = door.knock()
    began = time.monotonic()
    with pytest.raises(OSError, match=r"pipe|reset"):
        for byte in door.token:
            slow.sendall(bytes([byte]))
            time.sleep(0.2)
    assert time.monotonic() - began < server.HANDSHAKE_SECONDS + 2


def test_a_thousand_connections_do_not_disturb_a_stream(door: Door) -> None:
    samples = sound(3)
    with door.client.open_stream(CONFIG, b"picture") as stream:
        crowd = []
        for number in range(1000):
            # Who comes when the door is full is turned away.
            with contextlib.suppress(OSError):
                crowd.append(door.knock())
            if number % 400 == 0:
                stream.push_audio(samples[number // 400 * 17920 :][:17920])
                chunk = stream.next_chunk(20)
                assert np.array_equal(chunk.frames, expected_frames(samples, chunk.index, stream.number))
        assert psutil.Process(door.client.welcome.pid).num_fds() < 120
        for sock in crowd:
            sock.close()
    wait_until(lambda: psutil.Process(door.client.welcome.pid).num_fds() < 40, 10, "strangers gone")


@pytest.mark.parametrize("count", [60, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_bytes_after_the_greeting(door: Door, count: int) -> None:
    generator = random.Random(3)  # noqa: S311 - reproducible, not secret
    process = psutil.Process(door.client.welcome.pid)
    before = process.memory_info().rss
    for _ in range(int(count * SCALE)):
        junk = generator.randbytes(generator.randrange(1, 400))
        if generator.random() < 0.5:
            junk = HEADER.pack(b"LVTK", 1, 0, 0, len(junk)) + junk
        # The daemon may hang up before it has read everything: both ends of that are allowed.
        with contextlib.suppress(ConnectionError), door.knock(door.token + door.hello + junk) as sock:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(1000):
                pass
    assert door.serves()
    assert process.memory_info().rss < before + 16 * 2**20


def test_a_stream_belongs_to_its_client(door: Door) -> None:
    with door.client.open_stream(CONFIG, b"picture") as stream:
        other = Client.start_or_join(door.client.config)
        for kind, fields in (("NextChunk", (stream.number, 0)), ("Cancel", (stream.number,))):
            from livetalk_core.daemon import messages

            with pytest.raises(StreamDroppedError, match="no stream"):
                other._calls.ask(10, getattr(messages, kind), *fields)
        other.close()
        stream.push_audio(sound(1))
        assert stream.next_chunk(20).index == 0


def test_no_listener_beyond_this_machine(door: Door) -> None:
    tree = [psutil.Process(door.client.welcome.pid), *psutil.Process(door.client.welcome.pid).children(recursive=True)]
    assert len(tree) == 2
    for process in tree:
        assert process.net_connections("inet") == []


def test_nothing_with_a_name_in_shared_memory(door: Door) -> None:
    before = set(os.listdir("/dev/shm"))
    with door.client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(1))
        stream.next_chunk(20)
        assert set(os.listdir("/dev/shm")) <= before


def test_files_of_the_daemon_are_private(door: Door) -> None:
    for path in [door.directory, *door.directory.iterdir(), door.root / "logs", *(door.root / "logs").iterdir()]:
        assert path.lstat().st_mode & 0o077 == 0, path


def test_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(AccessError, match="not a private folder"):
        Client.start_or_join(daemon_config(tmp_path))
    assert not processes_of(tmp_path)


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    somebody = os.getuid() + 1
    monkeypatch.setattr("os.getuid", lambda: somebody)
    with pytest.raises(AccessError, match="not a private folder"):
        Client.start_or_join(daemon_config(tmp_path))
    assert not processes_of(tmp_path)


def test_socket_over_loopback_needs_the_token_too(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, world=1, transport="tcp")) as client:
        ((directory, endpoint),) = launch.living(tmp_path)
        assert endpoint.port and not (directory / "s").exists()
        (listener,) = psutil.Process(client.welcome.pid).net_connections("tcp")[:1]
        assert listener.laddr.ip == "127.0.0.1"
        with socket.create_connection(("127.0.0.1", endpoint.port), 5) as sock:
            sock.sendall(bytes(32))
            assert sock.recv(10) == b""
        assert client.stats().clients == 1
        with pytest.raises(ConfigError, match="shared memory"):
            client.open_stream(CONFIG, b"picture")


def test_nothing_secret_is_logged_or_told(tmp_path: Path) -> None:
    told: list[str] = []
    config = daemon_config(tmp_path, fail_at("raise", 0, chunk=0, step=1))
    with running(config, lambda event: told.append(repr(event))) as client:
        ((directory, _),) = launch.living(tmp_path)
        token = read_endpoint(directory).token
        stream = client.open_stream(CONFIG, b"picture")
        stream.push_audio(sound(1))
        with pytest.raises(LiveTalkError) as caught:
            stream.next_chunk(20)
        told.append(f"{caught.value!r} {caught.value.details}")
        with pytest.raises((DaemonUnavailableError, LiveTalkError)):
            stream.next_chunk(5)
        told += [path.read_text() for path in (tmp_path / "logs").iterdir()]
    assert any("scripted fault" in text for text in told)
    for text in told:
        assert token not in text and os.path.expanduser("~") + "/" not in text


def test_client_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(daemon_config(tmp_path, world=1)) as client:
        door = Door(client, tmp_path)
        sock = door.knock(door.token + door.hello)
        process = psutil.Process(client.welcome.pid)
        request = encode(Stats(7)) * 1000
        sock.settimeout(0.5)
        began = time.monotonic()
        with pytest.raises(OSError, match=r"timed out|pipe|reset"):
            while time.monotonic() - began < 60:
                sock.sendall(request)
        assert process.memory_info().rss < 300 * 2**20
        sock.close()
        wait_until(lambda: client.stats().clients == 1, 20, "the other one is gone")
