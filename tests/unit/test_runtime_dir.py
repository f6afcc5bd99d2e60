"""The folder of the daemons: private, swept, locked; what a start that fails leaves in it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec
import pytest

from livetalk_core.daemon import process_group, runtime_dir
from livetalk_core.daemon.daemon_config import DaemonConfig
from livetalk_core.errors import AccessError, ConfigError, DeadlineError

pytestmark = pytest.mark.unit


def test_folder_is_made_private_and_a_foreign_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(runtime_dir.tempfile, "gettempdir", lambda: str(tmp_path))
    base = runtime_dir.base_directory()
    assert base == tmp_path / f"livetalk-{os.getuid()}" and base.stat().st_mode & 0o777 == 0o700
    for mode in (0o777, 0o750, 0o701):
        base.chmod(mode)
        with pytest.raises(AccessError, match="not a private folder"):
            runtime_dir.base_directory()
    base.chmod(0o700)
    base.rename(tmp_path / "elsewhere")
    base.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AccessError):
        runtime_dir.base_directory()
    base.unlink()
    base.write_text("")
    with pytest.raises(AccessError):
        runtime_dir.base_directory()


def test_runtime_folder_of_the_system_is_used_if_it_is_private(tmp_path: Path, monkeypatch) -> None:
    offered = tmp_path / "run"
    offered.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(offered))
    assert runtime_dir.base_directory() == offered / "livetalk"
    offered.chmod(0o755)
    monkeypatch.setattr(runtime_dir.tempfile, "gettempdir", lambda: str(tmp_path))
    assert runtime_dir.base_directory().parent == tmp_path


def test_socket_path_that_the_system_cannot_take(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 90)
    with pytest.raises(ConfigError, match="107 bytes"):
        runtime_dir.socket_path(deep)


def test_endpoint_that_others_can_read_is_not_trusted(tmp_path: Path) -> None:
    directory = runtime_dir.make_directory(tmp_path)
    endpoint = runtime_dir.Endpoint(key="k", token="0" * 64, pid=1, started=1)
    path = directory / "endpoint.json"
    runtime_dir.write_private(path, msgspec.json.encode(endpoint))
    assert path.stat().st_mode & 0o777 == 0o600
    assert runtime_dir.read_endpoint(directory) == endpoint
    path.chmod(0o644)
    assert runtime_dir.read_endpoint(directory) is None
    path.chmod(0o600)
    path.write_bytes(b'{"key": "k", "evil": 1}')
    assert runtime_dir.read_endpoint(directory) is None


def test_sweep_takes_dead_folders_and_leaves_the_living(tmp_path: Path) -> None:
    held, dead, young = (runtime_dir.make_directory(tmp_path) for _ in range(3))
    lock = runtime_dir.hold_alive(held)
    os.close(runtime_dir.hold_alive(dead))
    other = tmp_path / "not-ours"
    other.mkdir()
    assert runtime_dir.sweep(tmp_path) == 1
    assert held.exists() and young.exists() and other.exists() and not dead.exists()
    os.close(lock)
    os.utime(young, (1, 1))
    assert runtime_dir.sweep(tmp_path) == 2


def test_start_lock_has_a_deadline(tmp_path: Path) -> None:
    with runtime_dir.start_lock(tmp_path, 1), pytest.raises(DeadlineError):  # noqa: SIM117 - order matters
        with runtime_dir.start_lock(tmp_path, 0.1):
            pass
    with runtime_dir.start_lock(tmp_path, 0.1):
        pass


def test_who_looks_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    directory = runtime_dir.make_directory(tmp_path)
    os.close(runtime_dir.hold_alive(directory))
    with open(directory / "alive") as looked_at:
        fcntl.flock(looked_at, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as `is_alive` does, at the same time
        assert not runtime_dir.is_alive(directory)
    lock = runtime_dir.hold_alive(directory)
    assert runtime_dir.is_alive(directory)
    os.close(lock)


def test_logs_that_vanish_meanwhile_are_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = runtime_dir.log_directory(tmp_path)
    for age, name in ((3, "a-rank0.log"), (1, "b-rank0.log"), (2, "c-rank0.log")):
        (logs / name).write_text("x")
        os.utime(logs / name, (1000 - age, 1000 - age))
    listed = [*logs.glob("*.log"), logs / "d-rank0.log"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(listed))
    assert [path.name[0] for path in runtime_dir.logs_by_age(tmp_path)] == ["a", "c", "b"]


def test_ranks_that_cannot_be_started_leave_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process_group.subprocess, "Popen", refuse)
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="temporarily"):
        process_group.ProcessGroup(DaemonConfig(world_size=2), tmp_path, tmp_path, 1, 0.0)
    assert set(os.listdir("/proc/self/fd")) == before
