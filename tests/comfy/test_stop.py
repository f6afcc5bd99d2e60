"""Stop pressed at every moment, the model released, the host killed: control comes back, nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from comfy_graphs import LOAD, ROOT, SAMPLER, Prompt, avatar, changed, workflow
from conftest import Runner

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(600)]
pytest.importorskip("aiohttp", reason="pip install -e .[comfy]")


@pytest.fixture(scope="module", autouse=True)
def _nothing_loaded(server: Any) -> None:
    """Begin without the daemons of other files, which may have more ranks."""
    server.post("/livetalk/release")
    wait_until_gone(daemons(server.pid))  # they wait some seconds for another program


CONTROL_SECONDS = 1.0
"""Between pressing Stop and the host's word that the prompt has ended, on a machine that does nothing else."""

GONE_SECONDS = 5.0
"""Until no process is left after the host was killed, likewise."""

LONG = changed(avatar(0.0), SAMPLER, steps=40, width=128, height=128)
LATENTS = {
    **{name: node for name, node in workflow("parallel_vae_decode").items() if name in ("8", "9")},
    "latent": {"class_type": "ProbeLatent",
               "inputs": {"batch": 4, "channels": 16, "length": 41, "height": 32, "width": 32}},
}  # fmt: skip


def at_phase(name: str) -> Callable[[str, Any], bool]:
    return lambda kind, data: kind == "livetalk.phase" and data["phase"] == name


def at(event: str) -> Callable[[str, Any], bool]:
    return lambda kind, data: kind == event


def all_steps_done(kind: str, data: Any) -> bool:
    """The first chunk's only step has been made: it is being decoded."""
    return kind == "progress" and data["value"] > 0


CASES: dict[str, tuple[Prompt, Callable[[str, Any], bool]]] = {
    "checking": (changed(LONG, LOAD, precision="fp32"), at_phase("checking")),
    "starting": (changed(LONG, LOAD, precision="fp32"), at_phase("starting")),
    "loading": (changed(LONG, LOAD, precision="fp32"), at_phase("loading")),
    "preparing": (LONG, at_phase("preparing")),
    "sampling": (LONG, at("progress")),
    "decoding": (changed(avatar(0.0), SAMPLER, steps=1, width=256, height=256), all_steps_done),
    "between chunks": (changed(avatar(0.0), SAMPLER, seed=5), at("livetalk.chunk")),
    "loading a VAE": (changed(LATENTS, "9", samples=["latent", 0]), at_phase("loading_vae")),
    "decoding latents": (changed(LATENTS, "9", samples=["latent", 0]), at("livetalk.chunk")),
}


@pytest.mark.parametrize("moment", CASES)
def test_stop_gives_control_back_and_the_next_run_is_clean(
    server: Any, run: Runner, moment: str, record_property: Callable[[str, object], None]
) -> None:
    graph, reached = CASES[moment]
    stopped = run(graph, interrupt=reached)
    record_property("seconds", require_control(stopped, moment))
    following = run(changed(avatar(1.0), SAMPLER, seed=hash(moment) % 1000))
    assert following.status == "success", following.error
    left = [path.name for path in (server.base / "temp" / "livetalk").glob("*") if path.suffix != ".mp4"]
    assert not left and len(daemons(server.pid)) <= 2 * 2


def test_stop_while_waiting_for_the_run_before(run: Runner) -> None:
    """The run before was stopped, but has not let go of the model yet."""
    assert run(hold(True)).status == "success"
    try:
        require_control(run(changed(LONG, SAMPLER, seed=31), interrupt=at_phase("waiting")), "waiting")
    finally:
        assert run(hold(False)).status == "success"
    assert run(changed(avatar(1.0), SAMPLER, seed=32)).status == "success"


def test_stop_while_a_rank_stands_still(server: Any, run: Runner) -> None:
    assert run(changed(avatar(1.0), SAMPLER, seed=33)).status == "success"
    rank = psutil.Process(server.get("/livetalk/status")["stream_model"]["processes"][0])

    def freeze(kind: str, data: Any) -> bool:
        if kind == "progress":
            rank.suspend()
        return kind == "progress"

    try:
        require_control(run(changed(LONG, SAMPLER, seed=34), interrupt=freeze), "a rank that stands still")
        require_control(run(changed(LONG, SAMPLER, seed=35), interrupt=at_phase("preparing")), "waiting for that rank")
    finally:
        rank.resume()
    assert run(changed(avatar(1.0), SAMPLER, seed=36)).status == "success"


def hold(held: bool) -> Prompt:
    """A graph that takes the model away from all others, or gives it back."""
    return {"1": {"class_type": "ProbeHoldModel", "inputs": {"held": held}}}


def test_giving_the_memory_back(server: Any, run: Runner) -> None:
    for post in (lambda: server.post("/livetalk/release"), lambda: server.post("/free", {"unload_models": True})):
        assert run(changed(avatar(1.0), SAMPLER, seed=time.time_ns() % 10**6)).status == "success"
        held = server.get("/livetalk/status")["stream_model"]
        assert held["model"] == "embedded" and not held["busy"] and all(map(psutil.pid_exists, held["processes"]))
        post()
        assert server.get("/livetalk/status")["stream_model"]["model"] is None
        wait_until_gone([psutil.Process(pid) for pid in held["processes"] if psutil.pid_exists(pid)])
    graph = {"release": {"class_type": "LiveTalkReleaseModel", "inputs": {}}}
    shown = {**graph, "shown": {"class_type": "PreviewAny", "inputs": {"source": ["release", 0]}}}
    assert "nothing was loaded" in run(shown).outputs["shown"]["text"][0]


def test_a_host_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    from tools.comfy_host.client import run_prompt
    from tools.comfy_host.server import ComfyServer

    with ComfyServer((ROOT,), base=tmp_path) as server:
        chunk = threading.Event()

        def follow() -> None:
            with pytest.raises((ConnectionError, OSError)):
                run_prompt(server.url, LONG, interrupt=lambda kind, data: bool(kind == "progress" and chunk.set()))

        follower = threading.Thread(target=follow)
        follower.start()
        assert chunk.wait(300)
        started = daemons(server.pid)
        assert len(started) == 2, "one supervisor and one rank"
        server.kill()
        print(f"all gone after {wait_until_gone(started):.1f} s")
        follower.join(30)


def test_a_daemon_that_died_is_replaced_without_a_word(server: Any, run: Runner) -> None:
    assert run(avatar(1.0)).status == "success"
    for process in daemons(server.pid):
        process.kill()
    outcome = run(changed(avatar(1.0), SAMPLER, seed=77))
    assert outcome.status == "success", outcome.error
    assert not outcome.ran() & {LOAD, "4"}


def require_control(stopped: Any, moment: str) -> float:
    """Check that a stopped run gave control back in time; seconds."""
    assert stopped.status == "interrupted", stopped.error
    seconds: float = stopped.when("execution_interrupted") - stopped.when("stop pressed")
    print(f"{moment}: control back after {seconds:.3f} s")
    assert seconds < CONTROL_SECONDS * slowdown(), moment
    return seconds


def slowdown() -> float:
    """How many times longer work takes than the processor needs for it, because others use it; 1 on a quiet machine."""
    wall, used = time.perf_counter(), time.process_time()
    while time.process_time() - used < 0.1:
        pass
    return max(1.0, (time.perf_counter() - wall) / 0.1)


def daemons(host: int) -> list[psutil.Process]:
    """Processes of ours that a host has started, however far down."""
    children = psutil.Process(host).children(recursive=True)
    return [child for child in children if "livetalk_core.daemon" in " ".join(child.cmdline())]


def wait_until_gone(processes: list[psutil.Process]) -> float:
    """Seconds until the last one has ended; fails when they take too long."""
    began, limit = time.monotonic(), GONE_SECONDS * slowdown()
    while alive := [process for process in processes if lives(process)]:
        assert time.monotonic() - began < limit, alive
        time.sleep(0.05)
    return time.monotonic() - began


def lives(process: psutil.Process) -> bool:
    """Whether it still runs; one that only waits for its parent to notice has ended."""
    try:
        status: str = process.status()
    except psutil.NoSuchProcess:
        return False
    return status != psutil.STATUS_ZOMBIE
