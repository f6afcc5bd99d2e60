"""Rules of the daemon that need no process: leases, budget, deadlines, ladder, positions of a stream, folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from livetalk_core.config import ChunkGeometry, StreamConfig, decode_config
from livetalk_core.daemon import runtime_dir
from livetalk_core.daemon.daemon_config import DaemonConfig, Deadlines
from livetalk_core.daemon.health import Progress
from livetalk_core.daemon.hosts import Hosts
from livetalk_core.daemon.leases import FIRST_CLIENT_SECONDS, Leases
from livetalk_core.daemon.processes import Ladder, is_same_process, signal_same, started_at
from livetalk_core.daemon.restart_budget import RestartBudget
from livetalk_core.daemon.streams import MAX_BACKLOG, SoundBacklog, StreamRecord
from livetalk_core.daemon.worker_messages import Beat, ChunkDone
from livetalk_core.errors import AccessError, AudioError, ConfigError, DeadlineError

pytestmark = pytest.mark.unit

GEOMETRY = ChunkGeometry()
SLICE = GEOMETRY.slice_samples


def test_owned_daemon_ends_a_grace_after_its_last_lease() -> None:
    leases = Leases(detached=False, grace=2, idle_timeout=100, now=0)
    assert not leases.ended(FIRST_CLIENT_SECONDS - 1), "the one who started it is still coming"
    leases.take(1)
    leases.take(2)
    leases.drop(1, 5)
    assert not leases.ended(50)
    leases.drop(2, 50)
    leases.drop(2, 51)  # does not prolong anything
    assert not leases.ended(51.9) and "last client" in leases.ended(52)
    leases.take(3)
    assert not leases.ended(60)


def test_daemon_whose_starter_never_comes_ends() -> None:
    leases = Leases(detached=False, grace=2, idle_timeout=100, now=0)
    assert leases.ended(FIRST_CLIENT_SECONDS)


def test_detached_daemon_ends_by_idleness_only() -> None:
    leases = Leases(detached=True, grace=2, idle_timeout=100, now=0)
    leases.worked(10)
    leases.take(1)  # somebody who only looks
    leases.drop(1, 20)
    assert not leases.ended(109) and "idle" in leases.ended(110)
    leases.worked(109)
    assert not leases.ended(150)


def test_restart_budget_counts_within_its_window() -> None:
    budget = RestartBudget(3, 600)
    assert [budget.take(now) for now in (0, 100, 200, 599.9)] == [True, True, True, False]
    assert budget.take(600) and not budget.take(650)
    assert budget.take(700) and budget.total == 5
    assert not RestartBudget(0, 600).take(0)


def _beat(phase: str, count: int, step: int = 0) -> Beat:
    return Beat(phase, 1, 0, step, 4, count)


def test_phases_have_their_own_deadlines() -> None:
    limits = Deadlines(start=10, load=20, compile=30, first_chunk=5, step=1, beat=100)
    progress = Progress(0, 0)
    assert progress.overdue(limits, 9.9) is None and progress.overdue(limits, 10.1) == ("deadlines.start", 10)
    for phase, setting, limit in (("loading", "load", 20), ("compiling", "compile", 30), ("step", "first_chunk", 5)):
        progress.update(_beat(phase, 0), 100)
        assert progress.overdue(limits, 100 + limit - 0.1) is None
        assert progress.overdue(limits, 100 + limit + 0.1) == (f"deadlines.{setting}", limit)
    progress.update(_beat("idle", 1), 200)
    assert progress.overdue(limits, 299) is None, "an idle rank has all the time"


def test_step_deadline_follows_the_usual_step_and_repeated_beats_are_no_progress() -> None:
    limits = Deadlines(step=1, beat=4)
    progress = Progress(0, 0)
    now = 0.0
    for count in range(6):
        progress.update(_beat("step", count, count), now)
        now += 0.5
    progress.update(_beat("idle", 6), now)
    progress.update(_beat("step", 6), now)
    for tick in range(10):
        progress.update(_beat("step", 6), now + tick * 0.5)
    assert progress.overdue(limits, now + 4.9) is None
    name, limit = progress.overdue(limits, now + 5.1) or ("", 0)
    assert (name, limit) == ("deadlines.step", 5.0), "ten times the median of 0.5 s"


def test_silence_is_noticed_before_the_deadline_of_the_phase() -> None:
    progress = Progress(0, 0)
    progress.update(_beat("step", 1), 10)
    assert progress.overdue(Deadlines(beat=2), 12.1) == ("deadlines.beat", 2)
    progress.update(_beat("loading", 2), 20)
    assert progress.overdue(Deadlines(beat=2), 40) is None, "loaders may hold the interpreter"


@pytest.mark.parametrize(
    ("code", "rung"),
    [
        ("import sys; sys.stdin.readline()", "message"),
        ("import time; time.sleep(60)", "sigterm"),
        ("import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)", "sigkill"),
    ],
)
def test_ladder_goes_as_far_as_needed(code: str, rung: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", code + "\n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None and child.stdout is not None
    if rung == "sigkill":
        child.stdout.readline()
    ladder = Ladder([child], 10.0 if rung == "message" else 0.2, 0.2 if rung == "sigkill" else 10.0, time.monotonic())
    child.stdin.close()  # the message
    ends = time.monotonic() + 20
    while not ladder.gone(time.monotonic()):
        assert time.monotonic() < ends
        time.sleep(0.02)
    child.stdout.close()
    assert ladder.rung == rung


def test_process_is_known_by_its_start_time() -> None:
    started = started_at(os.getpid())
    assert is_same_process(os.getpid(), started)
    assert not is_same_process(os.getpid(), started + 1)
    assert not signal_same(os.getpid(), started + 1, signal.SIGKILL)
    assert started_at(2**22 + 1) == 0 and not is_same_process(2**22 + 1, 0)


def _record(slots: int = 3) -> StreamRecord:
    config = StreamConfig(width=32, height=16)
    return StreamRecord(
        number=1, client=1, config=config, config_json=b"", picture=b"", clip=0, ring=-1, slots=slots, slot_bytes=1
    )


def _sound(samples: int) -> bytes:
    return np.arange(samples, dtype=np.float32).tobytes()


def _make(record: StreamRecord, final: bool = False) -> None:
    sound = record.next_sound()
    assert sound is not None
    run = record.begin(sound)
    record.commit(ChunkDone(1, run.epoch, run.chunk, final, f"after {run.chunk}".encode(), 0, 28, 16, 32))


def test_every_sample_is_used_once_and_a_broken_chunk_gets_the_same_sound_again() -> None:
    record = _record(8)
    record.sound.push(_sound(3 * SLICE), False)
    _make(record)
    first = record.begin(record.next_sound() or b"")
    record.abandon()
    again = record.begin(record.next_sound() or b"")
    assert first == again and np.frombuffer(again.samples, np.float32)[0] == SLICE
    record.abandon()
    _make(record)
    _make(record)
    assert record.next_sound() is None and not record.finished()
    record.sound.push(b"", True)
    assert record.finished() and record.position.samples == 3 * SLICE


@pytest.mark.parametrize(("tail", "chunks"), [(0, 1), (100, 1), (320, 2), (SLICE - 1, 2)])
def test_tail_that_adds_no_frame_makes_no_chunk(tail: int, chunks: int) -> None:
    record = _record(8)
    record.sound.push(_sound(SLICE + tail), True)
    made = 0
    while record.next_sound() is not None:
        _make(record)
        made += 1
    assert made == chunks and record.finished()


def test_single_sample_makes_a_chunk() -> None:
    record = _record()
    record.sound.push(_sound(1), True)
    _make(record, final=True)
    assert record.finished()


def test_slots_are_given_out_once() -> None:
    record = _record(3)
    record.sound.push(_sound(9 * SLICE), False)
    for _ in range(3):
        _make(record)
    assert not record.free
    record.release([0, 1, 2, 99, -1])
    assert not record.free, "slots that wait to be delivered are not the client's to give back"
    slot = record.deliver(5).slot
    record.release([slot])
    assert record.free == {slot}


def test_cancel_goes_back_to_the_last_delivered_chunk() -> None:
    record = _record(4)
    record.sound.push(_sound(4 * SLICE), False)
    for _ in range(3):
        _make(record)
    assert record.deliver(1).chunk == 0
    record.cancel()
    assert record.position.state == b"after 0" and record.position.chunk == 1 and record.stale
    assert record.deliver(2) is None and record.sound.samples == 0 and record.epoch == 1
    assert len(record.free) == 3


def test_backlog_is_bounded_and_whole() -> None:
    backlog = SoundBacklog()
    with pytest.raises(AudioError, match="not whole"):
        backlog.push(b"123", False)
    assert backlog.push(bytes(MAX_BACKLOG - 4), False) == MAX_BACKLOG // 4 - 1
    assert backlog.push(bytes(400), True) == 1 and not backlog.final, "the end comes with its last sample"


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
