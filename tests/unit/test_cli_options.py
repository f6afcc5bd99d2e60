"""Groups of options: every option reaches the request that it is for."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from cli_tools import livetalk
from typer.testing import CliRunner

from livetalk_core import production
from livetalk_core.cli.groups import grouped
from livetalk_core.errors import LiveTalkError
from livetalk_core.production import VideoRequest

pytestmark = pytest.mark.unit

# Option, what is given, field of the request, what it holds then.
OPTIONS = [
    ("--image", "me.jpg", "image", Path("me.jpg")),
    ("--report", "r.json", "report", Path("r.json")),
    ("--state", "s.state", "state", Path("s.state")),
    ("--resume", "old.state", "resume", Path("old.state")),
    ("--prompt", "a talk", "prompt", "a talk"),
    ("--size", "32x48", "size", (32, 48)),
    ("--seed", 5, "seed", 5),
    ("--steps", 3, "steps", 3),
    ("--shift", 2.5, "shift", 2.5),
    ("--max-seconds", 1.5, "max_seconds", 1.5),
    ("--mode", "whole", "mode", "whole"),
    ("--color-strength", 0.25, "color_strength", 0.25),
    ("--border-fade", 2, "border_fade", 2),
    ("--lookback", 1, "lookback", 1),
    ("--drift-threshold", 0.75, "drift_threshold", 0.75),
    ("--renoise", 0.125, "renoise", 0.125),
    ("--anchor", "first_chunk", "anchor", "first_chunk"),
    ("--model", "models/x", "model", "models/x"),
    ("--model", "embedded", "model", None),
    ("--device", "cpu", "device", "cpu"),
    ("--dtype", "bf16", "dtype", "bf16"),
    ("--compile", None, "compile", True),
    ("--world-size", 2, "world_size", 2),
    ("--attention", "torch", "attention", "torch"),
]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[VideoRequest]:
    """What `generate` asks for; nothing is made."""
    seen: list[VideoRequest] = []

    def produce(request: VideoRequest, *_: object) -> None:
        seen.append(request)
        raise LiveTalkError("Only asked.")

    monkeypatch.setattr(production, "produce", produce, raising=False)
    return seen


@pytest.mark.parametrize(("option", "value", "field", "held"), OPTIONS, ids=lambda value: str(value))
def test_an_option_reaches_its_field_and_no_other(
    requests: list[VideoRequest], option: str, value: object, field: str, held: object
) -> None:
    base = ("generate", "--audio", "a.wav", "--out", "a.mp4", "--json")
    livetalk(*base)
    livetalk(*base, option, *(() if value is None else (value,)))
    plain, changed = requests
    expected = dataclasses.replace(plain, **{field: held})  # type: ignore[arg-type]
    assert vars(changed) == vars(expected)


def test_gpus_and_hosts_reach_the_request(requests: list[VideoRequest], tmp_path: Path) -> None:
    base = ("generate", "--audio", "a.wav", "--out", "a.mp4", "--json")
    livetalk(*base, "--world-size", 2, "--devices", "0, 3")
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps({"nodes": 2, "ranks_per_node": 2, "master": "10.0.0.1", "interface": "eth0"}))
    livetalk(*base, "--hosts", hosts)
    here, spread = requests
    assert (here.world_size, here.devices, here.daemon) == (2, (0, 3), None)
    assert spread.world_size == 4 and spread.daemon is not None and spread.daemon.hosts is not None
    assert spread.daemon.hosts.nodes == 2


def test_a_number_with_a_blank_in_it_is_no_gpu() -> None:
    outcome = livetalk("generate", "--audio", "a.wav", "--out", "a.mp4", "--world-size", 1, "--devices", "0 1")
    assert outcome.code == 2 and "--devices" in outcome.stderr


@dataclass(frozen=True)
class Colours:
    """A group."""

    ink: Annotated[str, typer.Option()]
    paper: Annotated[str, typer.Option()] = "white"


def test_a_group_is_spread_over_the_command_and_gathered_again() -> None:
    app = typer.Typer()
    told: list[object] = []

    @app.command()
    @grouped
    def write(colours: Colours, loud: Annotated[bool, typer.Option("--loud")] = False) -> None:
        told.append((colours, loud))

    assert CliRunner().invoke(app, ["--ink", "blue", "--loud"]).exit_code == 0
    assert told == [(Colours("blue", "white"), True)]
    assert CliRunner().invoke(app, ["--paper", "grey"]).exit_code == 2, "ink has no default"
