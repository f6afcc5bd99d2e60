"""Ranks on several hosts: the same worker under torchrun, here on one machine over loopback and two namespaces."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes.daemons import TESTS, running, wait_until
from fakes.faults import Kind, fail_at
from fakes.real import CONFIG, expected, off_by, picture, read, real_config, sha, speech
from msgspec.structs import replace
from numpy.typing import NDArray

from livetalk_core.daemon.client import Client
from livetalk_core.daemon.daemon_config import WORKER, DaemonConfig
from livetalk_core.daemon.hosts import Hosts
from livetalk_core.daemon.messages import Event, Progress
from livetalk_core.daemon.process_group import module_environment
from livetalk_core.errors import ConfigError, ImageError, LiveTalkError

pytestmark = [pytest.mark.dist, pytest.mark.timeout(300)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def _second_host(hosts: Hosts, *prefix: str, worker: str = WORKER) -> Iterator[subprocess.Popen[bytes]]:
    """What somebody runs on the other host."""
    command = [*prefix, *hosts.command(1, worker, "cpu")]
    environment = {**os.environ, **module_environment((TESTS,))}
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _config(root: Path, model: Path, hosts: Hosts) -> DaemonConfig:
    return real_config(root, model, world=2, hosts=hosts)


def _shown(client: Client) -> list[NDArray[np.uint8]]:
    """A stream's chunks."""
    with client.open_stream(CONFIG, picture(), want_state=True) as stream:
        stream.push_audio(speech(2.5), final=True)
        return read(stream)


def _shown_after_trouble(client: Client) -> list[NDArray[np.uint8]]:
    """The same after a bad picture, and on a stream that was broken off while the ranks computed."""
    with pytest.raises(ImageError):
        client.open_stream(CONFIG, b"no picture")
    with client.open_stream(CONFIG, picture()) as stream:
        stream.push_audio(speech(3, seed=8))
        wait_until(lambda: client.stats().ranks[0].phase == "step", 60, "under way")
        stream.cancel()
        stream.push_audio(speech(2.5), final=True)
        return read(stream)


def test_two_hosts_over_loopback_show_what_one_shows(tmp_path: Path, tiny_model_folder: Path) -> None:
    hosts = Hosts(nodes=2, master="127.0.0.1", port=_free_port(), interface="lo")
    with _second_host(hosts) as other:
        with running(_config(tmp_path, tiny_model_folder, hosts)) as client:
            shown, again = _shown(client), _shown_after_trouble(client)
            assert len(client.stats().ranks) == 1, "rank 0 answers for all"
        # The other host's ranks end with the first's, so that a service manager can start them for the next.
        assert other.wait(60) == 0
    identical, largest = off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 2.5)])
    assert identical >= 0.999 and largest <= 1
    assert list(map(sha, again)) == list(map(sha, shown))


@pytest.mark.parametrize(
    ("fault", "said"),
    [("raise", "Rank 1 on host .* failed in chunk 0: RuntimeError: scripted fault"),
     ("numerical", "Rank 1 on host .* failed in chunk 0: The model produced nan"),
     ("kill", "Rank 1, on another host, is gone")],
)  # fmt: skip
def test_fault_of_another_host_names_its_rank_and_what_it_said(
    tmp_path: Path, tiny_model_folder: Path, fault: Kind, said: str
) -> None:
    hosts = Hosts(nodes=2, master="127.0.0.1", port=_free_port(), interface="lo")
    begun: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "step":
            begun.append(time.monotonic())

    config = real_config(
        tmp_path, tiny_model_folder, fail_at(fault, rank=1, chunk=0, step=1), hosts=hosts, restarts=0,
        worker="fakes.faulty_host",
    )  # fmt: skip
    with _second_host(hosts, worker="fakes.faulty_host"), running(config, note) as client:
        stream = client.open_stream(CONFIG, picture())
        stream.push_audio(speech(1.5), final=True)
        with pytest.raises(LiveTalkError, match=said) as caught:
            read(stream)
        assert time.monotonic() - begun[-1] < 5
        assert caught.value.details["rank"] == 1 and "chunk" in caught.value.details


def test_host_that_goes_while_nothing_is_computed_is_named(tmp_path: Path, tiny_model_folder: Path) -> None:
    hosts = Hosts(nodes=2, master="127.0.0.1", port=_free_port(), interface="lo")
    config = replace(_config(tmp_path, tiny_model_folder, hosts), restarts=0)
    with _second_host(hosts) as other, running(config) as client:
        client.load_model()
        for rank in psutil.Process(other.pid).children(recursive=True):
            rank.kill()
        with pytest.raises(LiveTalkError, match="Rank 1, on another host, is gone"):
            client.open_stream(CONFIG, picture())


def test_worlds_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="world_size is 3"):
        DaemonConfig(world_size=3, hosts=Hosts(nodes=2, master="a", interface="lo"))
    for fields in ({"nodes": 1}, {"port": 80}, {"interface": ""}, {"interface": "x" * 16}, {"master": ""}):
        with pytest.raises(ConfigError, match=next(iter(fields))):
            Hosts(**{"nodes": 2, "master": "a", "interface": "lo", **fields})


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def _namespace() -> Iterator[tuple[str, str]]:
    """A network namespace behind a device that has the same name on both ends."""
    name, device = f"livetalk-{secrets.token_hex(3)}", f"lt{secrets.token_hex(3)}"
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("making a network namespace needs iproute2 and root")
    try:
        _ip("netns", "add", name)
        _ip("link", "add", device, "type", "veth", "peer", "name", device, "netns", name)
    except subprocess.CalledProcessError as error:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        pytest.skip(f"no network namespaces here ({error.stderr.decode().strip()})")
    try:
        _ip("address", "add", "10.213.7.1/24", "dev", device)
        _ip("link", "set", device, "up")
        _ip("-n", name, "address", "add", "10.213.7.2/24", "dev", device)
        _ip("-n", name, "link", "set", device, "up")
        yield name, device
    finally:
        _ip("netns", "delete", name)


@pytest.mark.slow
def test_two_namespaces_show_what_one_host_shows(tmp_path: Path, tiny_model_folder: Path) -> None:
    with _namespace() as (name, device):
        hosts = Hosts(nodes=2, master="10.213.7.1", port=_free_port(), interface=device)
        with _second_host(hosts, "ip", "netns", "exec", name), \
                running(_config(tmp_path, tiny_model_folder, hosts)) as client:  # fmt: skip
            shown, again = _shown(client), _shown_after_trouble(client)
    identical, largest = off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 2.5)])
    assert identical >= 0.999 and largest <= 1
    assert list(map(sha, again)) == list(map(sha, shown))
