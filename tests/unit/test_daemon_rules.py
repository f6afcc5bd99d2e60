"""When daemons and ranks end: leases, restart budget, deadlines, the ladder of stopping."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from fakes.daemons import wait_until

from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.daemon.health import Progress
from livetalk_core.daemon.leases import FIRST_CLIENT_SECONDS, Leases
from livetalk_core.daemon.processes import Ladder, is_same_process, signal_same, started_at
from livetalk_core.daemon.restart_budget import RestartBudget
from livetalk_core.daemon.worker_messages import Beat

pytestmark = pytest.mark.unit


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
    wait_until(lambda: ladder.gone(time.monotonic()), 20, "the child is gone")
    child.stdout.close()
    assert ladder.rung == rung


def test_process_is_known_by_its_start_time() -> None:
    started = started_at(os.getpid())
    assert is_same_process(os.getpid(), started)
    assert not is_same_process(os.getpid(), started + 1)
    assert not signal_same(os.getpid(), started + 1, signal.SIGKILL)
    assert started_at(2**22 + 1) == 0 and not is_same_process(2**22 + 1, 0)
