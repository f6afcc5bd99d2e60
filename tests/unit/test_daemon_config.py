"""Settings of a daemon: what is refused, and what makes two daemons one."""

from __future__ import annotations

import msgspec
import pytest

from livetalk_core.config import StreamConfig, decode_config
from livetalk_core.daemon.daemon_config import DaemonConfig, Deadlines
from livetalk_core.daemon.hosts import Hosts
from livetalk_core.errors import ConfigError

pytestmark = pytest.mark.unit


def test_settings_out_of_range_are_refused() -> None:
    for fields in ({"world_size": 0}, {"world_size": 65}, {"slots": 1}, {"grace": -1}, {"idle_timeout": 0}):
        with pytest.raises(ConfigError, match=next(iter(fields))):
            DaemonConfig(**fields)
    with pytest.raises(ConfigError, match=r"deadlines\.step"):
        Deadlines(step=0)


def test_configurations_of_other_versions_are_refused() -> None:
    known = msgspec.json.encode(DaemonConfig())
    assert decode_config(DaemonConfig, known, "daemon") == DaemonConfig()
    for change in ({"worldsize": 2}, {"world_size": "2"}, {"deadlines": {"stop_after": 1}}, {"world_size": 2.5}):
        with pytest.raises(ConfigError, match="daemon: "):
            decode_config(DaemonConfig, {**msgspec.json.decode(known), **change}, "daemon")


def test_environment_changes_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    before = DaemonConfig(), StreamConfig(width=64, height=64)
    for name in ("WORLD_SIZE", "DEVICE", "DTYPE", "SEED", "STEPS", "X"):
        monkeypatch.setenv(f"LIVETALK_{name}", "abc")
    assert before == (DaemonConfig(), StreamConfig(width=64, height=64))


def test_key_changes_with_everything_that_ranks_depend_on() -> None:
    base = DaemonConfig()
    same = DaemonConfig(detached=True, idle_timeout=5, grace=1)
    assert same.key() == base.key()
    others = [
        DaemonConfig(**fields)
        for fields in (
            {"model": "a"}, {"revision": "r"}, {"world_size": 2}, {"dtype": "bfloat16"}, {"device": "cpu"},
            {"options": {"threads": "2"}}, {"compile": True}, {"attention": "torch"},
            {"world_size": 2, "hosts": Hosts(nodes=2, master="a", interface="lo")},
        )
    ]  # fmt: skip
    assert len({base.key(), *(other.key() for other in others)}) == len(others) + 1
