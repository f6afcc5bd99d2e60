"""`livetalk daemon start`: a model loaded on ranks, left running."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DaemonUnavailableError
from .console import guarded, print_json, stderr, stdout
from .daemon_table import plain
from .parsing import (
    ATTENTION_HELP,
    DEVICE_HELP,
    DEVICES_HELP,
    DTYPE_HELP,
    HOSTS_HELP,
    JSON_HELP,
    MODEL_HELP,
    model_name,
    parse_devices,
    read_hosts,
)

if TYPE_CHECKING:
    from ..daemon.daemon_config import DaemonConfig
    from ..daemon.hosts import Hosts
    from ..daemon.registry import RunningDaemon
    from ..production import ModelFacts, VideoRequest

_DEFAULTS = (None, "auto", "embedded")


@guarded
def start(
    world_size: Annotated[
        int | None, typer.Option(help="Number of ranks: processes, one per GPU.", show_default="1")
    ] = None,
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    devices: Annotated[str | None, typer.Option(help=DEVICES_HELP, show_default="the first ones")] = None,
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    attention: Annotated[str, typer.Option(help=ATTENTION_HELP)] = "auto",
    compile_model: Annotated[bool, typer.Option("--compile", help="Compile the model.")] = False,
    hosts: Annotated[Path | None, typer.Option(help=HOSTS_HELP)] = None,
    idle_timeout: Annotated[float, typer.Option(help="Minutes without work after which it ends by itself.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> None:
    """Start a daemon, load the model, and leave it running.

    It ends after its idle timeout, by 'livetalk daemon stop', or with the machine.
    """
    from ..daemon.daemon_config import DaemonConfig
    from ..daemon.registry import stop_daemon
    from ..loading.describe import describe_model
    from ..production import VideoRequest, daemon_config

    several = read_hosts(hosts, world_size)
    world = several.world if several is not None else world_size or 1
    request = VideoRequest(
        audio="",
        output=Path(),
        model=model_name(model),
        device=device,
        dtype=dtype,
        compile=compile_model,
        world_size=world,
        devices=parse_devices(devices, world),
        attention=attention,
        detached=True,
        daemon=DaemonConfig(world_size=world, idle_timeout=idle_timeout * 60, hosts=several),
    )
    describe_model(request.model)
    config = daemon_config(request)
    key = config.key()
    same = _with_key(key)
    for other in same:
        if not other.config.detached:
            raise DaemonUnavailableError(
                f"The daemon {other.name} has this model, and ends with the program that started it.",
                "Wait until that program has ended, or stop it: livetalk daemon stop " + other.name,
            )
    if several is not None and not same:
        _say_hosts(several, config)
    try:
        facts = _load(request, quiet=as_json)
    except BaseException:
        # One that did not get as far as its model is of no use to anybody.
        for unfinished in [] if same else _with_key(key):
            stop_daemon(unfinished)
        raise
    running = _with_key(key)[0]
    if as_json:
        print_json({"daemon": running.name, "joined": bool(same), **plain(running)})
    else:
        _say_ready(running, facts, joined=bool(same))
        given = {"model": model, "device": device, "devices": devices, "dtype": dtype, "attention": attention}
        ranks = {"world-size": world} if hosts is None else {"hosts": hosts}
        _say_use({**given, **ranks}, compile_model)


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


def _say_ready(daemon: RunningDaemon, facts: ModelFacts, joined: bool) -> None:
    console = stdout()
    word = "Already there:" if joined else "Ready:"
    console.print(
        f"[green]{word}[/] daemon {daemon.name}, {facts.name} on {facts.world_size} x {facts.device} in {facts.dtype}, "
        f"processes {', '.join(map(str, facts.worker_pids))}"
    )
    console.print(f"It ends after {daemon.config.idle_timeout / 60:g} idle minutes, or by: livetalk daemon stop")


def _say_use(options: dict[str, Any], compiled: bool) -> None:
    """The options with which a video joins the daemon."""
    words = [word for name, value in options.items() if value not in _DEFAULTS for word in (f"--{name}", str(value))]
    words += ["--compile"] if compiled else []
    stdout().print(f"Use it with: livetalk generate --audio talk.wav --out talk.mp4 {shlex.join(words)}")
