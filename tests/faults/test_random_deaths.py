"""kill -9 from outside at any moment: nothing is left, nothing is lost, nothing comes twice."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from fakes.daemons import CONFIG, SCALE, assert_all_gone, daemon_config, expected_frames, sound

from livetalk_core.daemon.client import Client
from livetalk_core.daemon.messages import Health
from livetalk_core.errors import DaemonUnavailableError

pytestmark = pytest.mark.faults

TRIALS = max(1, int(2 * SCALE))


@pytest.mark.parametrize("trial", range(TRIALS))
def test_rank_killed_at_any_moment(tmp_path: Path, trial: int) -> None:
    generator = np.random.default_rng(100 + trial)
    faults: list[tuple[float, Health]] = []

    def note(event) -> None:
        if isinstance(event, Health) and event.error is not None:
            faults.append((time.monotonic(), event))

    config = daemon_config(tmp_path, options={"step_seconds": "0.05"})
    client = Client.start_or_join(config, note)
    samples = sound(6, seed=trial)
    with client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(samples, final=True)
        rank = client.stats().ranks[int(generator.integers(2))]
        time.sleep(float(generator.uniform(0, 1.0)))
        os.kill(rank.pid, signal.SIGKILL)
        killed, longest = time.monotonic(), 0.0
        for number, chunk in enumerate(stream.chunks(timeout=60)):
            assert chunk.index == number
            assert np.array_equal(chunk.frames, expected_frames(samples, number, stream.number))
            longest = max(longest, time.monotonic() - killed)
        assert number == 5
    ((told, event),) = faults
    assert event.error is not None and event.error.code == "worker_died"
    assert event.error.details["rank"] == rank.rank and "chunk" in event.error.details
    assert told - killed < 5 and longest < 45
    client.close()
    assert_all_gone(tmp_path)


@pytest.mark.parametrize("trial", range(TRIALS))
def test_supervisor_killed_at_any_moment(tmp_path: Path, trial: int) -> None:
    generator = np.random.default_rng(200 + trial)
    config = daemon_config(tmp_path, options={"step_seconds": "0.02"})
    client = Client.start_or_join(config)
    samples = sound(6, seed=trial)
    # From the first moment on: also while the ranks start.
    time.sleep(float(generator.uniform(0, 3)))
    os.kill(client.welcome.pid, signal.SIGKILL)
    killed = time.monotonic()
    with pytest.raises(DaemonUnavailableError):
        client.open_stream(CONFIG, b"picture").push_audio(samples)
    assert time.monotonic() - killed < 5
    client.close()
    with Client.start_or_join(config) as second, second.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(samples)
        assert stream.next_chunk(30).index == 0
    assert_all_gone(tmp_path)
