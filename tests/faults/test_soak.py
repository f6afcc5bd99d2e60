"""Long runs of the embedded model on real ranks, with small pictures: killed, cancelled, kept busy (slow tier).

`LIVETALK_TEST_SCALE` multiplies the counts; 1 means 50 kills, 100 cancels, 500 chunks.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from fakes.daemons import SCALE, assert_all_gone, leftovers, program, running, wait_until
from fakes.real import sha, steps_until_left

from livetalk_core.config import SamplerConfig, StreamConfig
from livetalk_core.daemon.client import Client, DaemonConfig
from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.daemon.messages import Event, Health, Progress
from livetalk_core.errors import DaemonUnavailableError
from livetalk_core.loading.describe import describe_model
from livetalk_core.media import open_sound
from livetalk_core.production.request import BUNDLED_PORTRAIT, BUNDLED_SPEECH

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(7200)]

WORLD, CHUNKS = 2, 5
PORTRAIT = BUNDLED_PORTRAIT.read_bytes()
DEFAULTS = describe_model(None).defaults
CONFIG = StreamConfig(
    width=32, height=32, seed=1, geometry=DEFAULTS.geometry, sampler=DEFAULTS.sampler,
    correction=DEFAULTS.correction, audio=DEFAULTS.audio,
)  # fmt: skip
SLICE = CONFIG.geometry.slice_samples


def _config(root: Path, **fields: object) -> DaemonConfig:
    limits = Deadlines(start=300, load=300, first_chunk=300, step=120, beat=30)
    base = {
        "world_size": WORLD, "device": "cpu", "dtype": "fp32", "options": {"threads": "1"}, "grace": 0.3,
        "runtime_root": str(root), "deadlines": limits, "restarts": 100,
    }  # fmt: skip
    return DaemonConfig(**{**base, **fields})  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _speech() -> np.ndarray:
    """The beginning of the bundled speech."""
    sound = open_sound(str(BUNDLED_SPEECH), CONFIG.geometry.sample_rate)
    try:
        return np.concatenate(list(sound))[: CHUNKS * SLICE]
    finally:
        sound.close()


_CLIENT = """
from pathlib import Path
from faults import test_soak as soak
client = soak.Client.start_or_join(soak._config(Path({root!r})))
stream = client.open_stream(soak.CONFIG, soak.PORTRAIT)
stream.push_audio(soak._speech(), final=True)
for chunk in stream.chunks(600):
    print(chunk.index, flush=True)
"""


class Flow:
    """A stream of the whole speech, and what was heard and seen while it ran."""

    def __init__(self, root: Path) -> None:
        self.events: list[tuple[float, Event]] = []
        self.client = Client.start_or_join(_config(root), self._note)
        self.shown: list[str] = []
        self.longest = 0.0

    def run(self) -> None:
        """Show all chunks, each in its turn and once."""
        last = time.monotonic()
        with self.client.open_stream(CONFIG, PORTRAIT) as stream:
            stream.push_audio(_speech(), final=True)
            for number, chunk in enumerate(stream.chunks(600)):
                assert chunk.index == number
                self.shown.append(sha(chunk.frames))
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now

    def step_begun(self, chunk: int, step: int) -> bool:
        """Whether the ranks have come that far."""
        beats = [event for _, event in self.events if isinstance(event, Progress)]
        return any((beat.chunk, beat.step) >= (chunk, step) for beat in beats if beat.phase in ("step", "decode"))

    def _note(self, event: Event) -> None:
        self.events.append((time.monotonic(), event))

    def faults(self) -> Iterator[tuple[float, Health]]:
        """What went wrong, and when it was told."""
        for when, event in self.events:
            if isinstance(event, Health) and event.error is not None:
                yield when, event


class Killer(threading.Thread):
    """Kills a process as soon as a stream has come to a place (chunk, step)."""

    def __init__(self, flow: Flow, pid: int, place: tuple[int, int]) -> None:
        super().__init__(daemon=True)
        self._flow, self._pid, self._place = flow, pid, place
        self._killed = 0.0
        self.start()

    def run(self) -> None:
        """See above."""
        wait_until(lambda: self._flow.step_begun(*self._place), 600, f"chunk and step {self._place}")
        self._killed = time.monotonic()
        os.kill(self._pid, signal.SIGKILL)

    def result(self) -> float:
        """When it was."""
        self.join(600)
        return self._killed


def _tell(what: str, **figures: object) -> None:
    print(json.dumps({"soak": what, **figures}), flush=True)


def test_killed_again_and_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(2026)
    keeper = Client.start_or_join(_config(tmp_path))
    reference = Flow(tmp_path)
    reference.run()
    told, resumed, counts = [], [], {"rank": 0, "supervisor": 0, "client": 0}
    for trial in range(max(3, int(50 * SCALE))):
        victim = ("rank", "client", "supervisor", "rank", "rank")[trial % 5]
        place, rank = (int(generator.integers(CHUNKS)), int(generator.integers(5))), int(generator.integers(WORLD))
        counts[victim] += 1
        if victim == "client":
            _kill_client(tmp_path, place[0])
            wait_until(lambda keeper=keeper: keeper.stats().streams == 0, 15, "its stream is freed")
            continue
        flow = Flow(tmp_path)
        flow.client.load_model()
        pids = [each.pid for each in flow.client.stats().ranks]
        killer = Killer(flow, flow.client.welcome.pid if victim == "supervisor" else pids[rank], place)
        if victim == "supervisor":
            with pytest.raises(DaemonUnavailableError):
                flow.run()
            told.append(time.monotonic() - killer.result())
            assert flow.shown == reference.shown[: len(flow.shown)]
            wait_until(lambda pids=pids: not any(map(psutil.pid_exists, pids)), 15, "ranks gone")
            keeper.close()
            keeper = Client.start_or_join(_config(tmp_path))
            assert len(leftovers(tmp_path)) == 1, "the folder of the killed daemon is gone"
        else:
            flow.run()
            assert flow.shown == reference.shown
            ((when, event),) = flow.faults()
            assert event.error is not None and event.error.code == "worker_died"
            assert event.error.details["rank"] == rank and event.error.details["chunk"] in (place[0], place[0] + 1)
            told.append(when - killer.result())
            resumed.append(flow.longest)
        flow.client.close()
        _tell("kill", trial=trial, victim=victim, place=place, told=told[-1], longest=flow.longest)
    reference.client.close()
    keeper.close()
    assert_all_gone(tmp_path)
    _tell("kills", **counts, told_max=max(told), told_mean=float(np.mean(told)), resumed_max=max(resumed),
          resumed_mean=float(np.mean(resumed)))  # fmt: skip
    assert max(told) <= 5


def _kill_client(root: Path, after: int) -> None:
    """Kill a client that has read some chunks."""
    with program(_CLIENT.format(root=str(root))) as process:
        assert process.stdout is not None
        for _ in range(after + 1):
            assert process.stdout.readline().strip().isdigit()
        process.kill()


def test_cancelled_again_and_again(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    late, took = [], []
    flow = Flow(tmp_path)
    with running(flow.client.config) as keeper, flow.client:
        flow.run()
        wanted = flow.shown[0]
        for _ in range(max(5, int(100 * SCALE))):
            place = int(generator.integers(2)), int(generator.integers(CONFIG.sampler.steps))
            with flow.client.open_stream(CONFIG, PORTRAIT) as stream:
                flow.events.clear()
                stream.push_audio(_speech()[::-1].copy())
                wait_until(lambda place=place: flow.step_begun(*place), 600, f"{place}")
                begun = [event.step for _, event in flow.events if isinstance(event, Progress)][-1]
                began = time.monotonic()
                step = stream.cancel()
                took.append(time.monotonic() - began)
                late.append(step - begun if step >= 0 else 0)
                stream.push_audio(_speech()[:SLICE], final=True)
                chunk = stream.next_chunk(600)
                assert chunk is not None and chunk.index == 0 and sha(chunk.frames) == wanted
        assert keeper.stats().restarts == 0
        ranks = [steps_until_left(log.read_text()) for log in tmp_path.rglob("*-rank*.log")]
    _tell("cancels", count=len(took), steps_after_max=max(late), seconds_max=max(took),
          seconds_mean=float(np.mean(took)), left_by_ranks=[len(steps) for steps in ranks],
          steps_on_ranks_max=max(map(max, ranks)))  # fmt: skip
    assert all(max(steps) <= 1 for steps in ranks), "no rank begins a step after the one in which it heard of it"


def test_five_hundred_chunks_leave_everything_flat(tmp_path: Path) -> None:
    count = max(20, int(500 * SCALE))
    quick = msgspec.structs.replace(CONFIG, sampler=SamplerConfig(steps=1))
    with running(_config(tmp_path)) as client, client.open_stream(quick, PORTRAIT) as stream:
        pids = [os.getpid(), client.welcome.pid, *(rank.pid for rank in client.stats().ranks)]
        processes = [psutil.Process(pid) for pid in pids]
        ring = client.stats().ring_bytes
        table = []
        for number in range(count):
            stream.push_audio(_speech()[(number % CHUNKS) * SLICE :][:SLICE])
            chunk = stream.next_chunk(600)
            assert chunk is not None and chunk.index == number and chunk.first_frame == 28 * number
            del chunk
            if number >= count // 5 and number % max(1, count // 20) == 0:
                table.append([[each.memory_info().rss, each.num_fds()] for each in processes])
        assert client.stats().ring_bytes == ring
        assert not [each.pid for each in processes if any(m.path.startswith("/dev/shm") for m in each.memory_maps())]
        assert client.stats().restarts == 0
    figures = np.array(table)  # [times, processes, (rss, descriptors)]
    growth = (figures[-3:, :, 0].mean(0) - figures[:3, :, 0].mean(0)) / 2**20
    _tell("chunks", count=count, rss_growth_mib=dict(zip(("client", "supervisor", "rank0", "rank1"),
          growth.round(2).tolist(), strict=True)), descriptors=figures[-1, :, 1].tolist())  # fmt: skip
    assert (figures[-1, :, 1] <= figures[0, :, 1]).all()
    assert growth.max() < 8
