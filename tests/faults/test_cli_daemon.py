"""`livetalk daemon status|stop|logs` on daemons of fake ranks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_tools import livetalk
from fakes.daemons import CONFIG, assert_all_gone, daemon_config, sound, wait_until
from fakes.faults import fail_at

from livetalk_core.daemon.client import Client
from livetalk_core.daemon.registry import running_daemons
from livetalk_core.errors import LiveTalkError

pytestmark = pytest.mark.faults


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of this user's daemons."""
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    (run / "livetalk").mkdir(mode=0o700)
    yield run / "livetalk"
    assert_all_gone(run / "livetalk")


def test_status_shows_what_runs_and_stop_ends_it(root: Path) -> None:
    assert "No daemon runs" in livetalk("daemon", "status").stdout
    assert livetalk("daemon", "status", "--json").json == {"daemons": []}
    client = Client.start_or_join(daemon_config(root, detached=True, world=3, idle_timeout=1800))
    client.load_model()
    (row,) = livetalk("daemon", "status", "--json").json["daemons"]
    assert row["state"] == "ready" and row["world_size"] == 3 and row["detached"] and row["clients"] == 1
    assert row["pid"] == client.welcome.pid
    assert [rank["pid"] for rank in row["ranks"]] == [rank.pid for rank in client.stats().ranks]
    assert row["memory_bytes"] > 10**7 and all(Path(path).is_file() for path in row["logs"])
    shown = livetalk("daemon", "status").stdout
    for word in (row["daemon"], str(row["pid"]), "embedded", "3 x auto", "idle"):
        assert word in shown
    with client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(1))
        stream.next_chunk(30)
        assert "1 stream" in livetalk("daemon", "status").stdout
    client.close()
    idle = livetalk("daemon", "status", "--json").json["daemons"][0]["idle"]
    assert livetalk("daemon", "status", "--json").json["daemons"][0]["idle"] > idle, "looking is not work"
    assert livetalk("daemon", "logs", "-n", 3).stdout.count(".log") == 4
    outcome = livetalk("daemon", "stop", row["daemon"][:4])
    assert outcome.code == 0 and "stopped when asked" in outcome.stdout
    assert "No daemon runs" in livetalk("daemon", "stop").stdout


def test_stop_uses_force_where_nobody_answers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livetalk_core.daemon.registry._LOOK_SECONDS", 0.5)
    client = Client.start_or_join(daemon_config(root, detached=True))
    os.kill(client.welcome.pid, signal.SIGSTOP)
    (row,) = livetalk("daemon", "status", "--json").json["daemons"]
    assert row["state"] == "unreachable" and "did not answer" in row["problem"]
    assert "unreachable" in livetalk("daemon", "status").stdout
    stopped = livetalk("daemon", "stop", "--json").json["stopped"]
    assert stopped == {row["daemon"]: "did not answer, stopped by SIGKILL"}
    client.close()


def test_logs_of_a_daemon_that_met_a_fault_stay(root: Path) -> None:
    assert livetalk("daemon", "logs").stderr.startswith("No logs")
    unknown = livetalk("daemon", "logs", "nonsense")
    assert unknown.code == 2 and "no logs of a daemon 'nonsense'" in unknown.stderr
    with Client.start_or_join(daemon_config(root, fail_at("raise", 1, chunk=0))) as client:
        (daemon,) = running_daemons()
        with client.open_stream(CONFIG, b"picture") as stream, pytest.raises(LiveTalkError):
            stream.push_audio(sound(1))
            stream.next_chunk(30)
    wait_until(lambda: not running_daemons(), 15, "the daemon has ended")
    shown = livetalk("daemon", "logs", daemon.name).stdout
    assert f"{daemon.name}-supervisor.log" in shown and "rank_error" in shown
    followed = livetalk("daemon", "logs", daemon.name, "--follow")
    assert followed.code == 0 and "rank_error" in followed.stdout and "has ended" in followed.stderr


def test_unknown_name_is_refused_with_the_known_ones(root: Path) -> None:
    with Client.start_or_join(daemon_config(root)):
        (daemon,) = running_daemons()
        outcome = livetalk("daemon", "stop", "zzz")
        assert outcome.code == 2 and "no daemon 'zzz'" in outcome.stderr and daemon.name in outcome.stderr


def test_more_ranks_than_the_cores_can_keep_going_are_refused_before_any_starts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    outcome = livetalk("daemon", "start", "--world-size", 5)
    assert outcome.code == 2 and "5 ranks are more than the 1 processor core(s)" in outcome.stderr
    assert "Start at most 4" in outcome.stderr and not list(root.iterdir())
