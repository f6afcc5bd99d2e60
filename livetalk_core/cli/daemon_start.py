"""`livetalk daemon start`: a model loaded on ranks, left running."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from ..errors import DaemonUnavailableError
from .console import guarded, print_json, stderr, stdout
from .daemon_table import plain
from .groups import grouped
from .options import HostsFile, Json, ModelOptions, RankOptions, option, request_fields
from .parsing import read_hosts

if TYPE_CHECKING:
    from ..daemon.daemon_config import DaemonConfig
    from ..daemon.hosts import Hosts
    from ..daemon.registry import RunningDaemon
    from ..production import ModelFacts, VideoRequest

_DEFAULTS = (None, "auto", "embedded")


@guarded
@grouped
def start(
    model: ModelOptions,
    ranks: RankOptions,
    hosts: HostsFile = None,
    idle_timeout: Annotated[float, option("Minutes without work after which it ends by itself.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Start a daemon, load the model, and leave it running.

    It ends after its idle timeout, by 'livetalk daemon stop', or with the machine.
    """
    from ..loading.describe import describe_model
    from ..production import daemon_config

    several = read_hosts(hosts, ranks.world_size)
    request = _request(model, ranks, several, idle_timeout * 60)
    describe_model(request.model)
    config = daemon_config(request)
    same = _with_key(config.key())
    _require_lasting(same)
    if several is not None and not same:
        _say_hosts(several, config)
    facts = _load(request, as_json) if same else _load_new(request, config.key(), as_json)
    running = _with_key(config.key())[0]
    if as_json:
        print_json({"daemon": running.name, "joined": bool(same), **plain(running)})
    else:
        _say_ready(running, facts, joined=bool(same))
        _say_use(model, ranks, hosts)


def _request(model: ModelOptions, ranks: RankOptions, hosts: Hosts | None, idle_seconds: float) -> VideoRequest:
    """The production that a daemon of these options would serve."""
    from ..daemon.daemon_config import DaemonConfig
    from ..production import VideoRequest

    alone = 1 if ranks.world_size is None else ranks.world_size
    world = alone if hosts is None else hosts.world
    return VideoRequest(
        audio="",
        output=Path(),
        **request_fields(model, ranks, world),
        detached=True,
        daemon=DaemonConfig(world_size=world, idle_timeout=idle_seconds, hosts=hosts),
    )


def _require_lasting(daemons: list[RunningDaemon]) -> None:
    for other in daemons:
        if not other.config.detached:
            raise DaemonUnavailableError(
                f"The daemon {other.name} has this model, and ends with the program that started it.",
                "Wait until that program has ended, or stop it: livetalk daemon stop " + other.name,
            )


def _say_hosts(hosts: Hosts, config: DaemonConfig) -> None:
    """What has to run on the other hosts; the ranks here wait for it."""
    console = stderr()
    for node in range(1, hosts.nodes):
        command = hosts.command(node, config.worker, config.device)
        console.print(f"On host {node + 1} of {hosts.nodes} run: {shlex.join(['python', *command[1:]])}")


def _with_key(key: str) -> list[RunningDaemon]:
    from ..daemon.registry import running_daemons

    return [daemon for daemon in running_daemons() if daemon.endpoint.key == key]


def _load(request: VideoRequest, quiet: bool) -> ModelFacts:
    """Start or join the daemon and load its model; what it says is shown as for a video."""
    from ..production import make_backend
    from ..production.backend import Watch
    from .progress import ProgressLine

    backend = make_backend(request)
    try:
        with ProgressLine(quiet=quiet) as progress:
            return backend.load(Watch(progress))
    finally:
        backend.close()


def _load_new(request: VideoRequest, key: str, quiet: bool) -> ModelFacts:
    """Like `_load`; a daemon that did not get as far as its model is of no use to anybody."""
    from ..daemon.registry import stop_daemon

    try:
        return _load(request, quiet)
    except BaseException:
        for unfinished in _with_key(key):
            stop_daemon(unfinished)
        raise


def _say_ready(daemon: RunningDaemon, facts: ModelFacts, joined: bool) -> None:
    console = stdout()
    word = "Already there:" if joined else "Ready:"
    console.print(
        f"[green]{word}[/] daemon {daemon.name}, {facts.name} on {facts.world_size} x {facts.device} in {facts.dtype}, "
        f"processes {', '.join(map(str, facts.worker_pids))}"
    )
    console.print(f"It ends after {daemon.config.idle_timeout / 60:g} idle minutes, or by: livetalk daemon stop")


def _say_use(model: ModelOptions, ranks: RankOptions, hosts: Path | None) -> None:
    """The options with which a video joins the daemon."""
    given: dict[str, object] = {"model": model.model, "device": model.device, "dtype": model.dtype}
    given |= {"offload": model.offload, "devices": ranks.devices, "attention": ranks.attention}
    given |= {"world-size": ranks.world_size or 1} if hosts is None else {"hosts": hosts}
    words = [word for name, value in given.items() if value not in _DEFAULTS for word in (f"--{name}", str(value))]
    words += ["--compile"] if model.compile_model else []
    stdout().print(f"Use it with: livetalk generate --audio talk.wav --out talk.mp4 {shlex.join(words)}")
