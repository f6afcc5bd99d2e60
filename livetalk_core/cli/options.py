"""Options that several commands share, alone or in groups (see `grouped`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import Offload
from .parsing import model_name, parse_devices

_MODEL, _RANKS = "Model and device", "Several GPUs"

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Size = Annotated[
    str | None,
    typer.Option(help="Width x height in pixels, such as 448x768; multiples of 16.", show_default="the model's"),
]
Steps = Annotated[int | None, typer.Option(help="Sampling steps.", show_default="the model's")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same frames.", show_default="9999")]
Model = Annotated[
    str, typer.Option(help="Model folder; 'embedded' is the small one in the package.", rich_help_panel=_MODEL)
]
HostsFile = Annotated[
    Path | None,
    typer.Option(
        "--hosts",
        help="Spread the ranks over several hosts of a trusted network: a JSON file such as"
        ' {"nodes": 2, "ranks_per_node": 8, "master": "10.0.0.1", "interface": "eth0"}.',
        rich_help_panel=_RANKS,
    ),
]


@dataclass(frozen=True)
class ModelOptions:
    """A model, where it computes, and in which number format."""

    model: Model = "embedded"
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_MODEL)] = "auto"
    dtype: Annotated[
        str,
        typer.Option(
            help="Number format: auto (bf16 where the hardware has it), fp32 or bf16.", rich_help_panel=_MODEL
        ),
    ] = "auto"
    offload: Annotated[
        Offload,
        typer.Option(
            help="'encoders' keeps text and image encoder in host memory, 'none' nothing, auto what the device is too"
            " small for.",
            rich_help_panel=_MODEL,
        ),
    ] = "auto"
    compile_model: Annotated[
        bool,
        typer.Option("--compile", help="Compile the model first: pays for long videos.", rich_help_panel=_MODEL),
    ] = False


@dataclass(frozen=True)
class RankOptions:
    """The processes, one per GPU, that share the work."""

    world_size: Annotated[
        int | None,
        typer.Option(
            help="Ranks that compute: processes of a daemon, one per GPU. 'generate' joins a daemon that 'livetalk"
            " daemon start' left running with the same model, ranks and number format.",
            show_default="this process; one rank for 'daemon start'", rich_help_panel=_RANKS,
        ),
    ] = None  # fmt: skip
    devices: Annotated[
        str | None,
        typer.Option(
            help="GPUs of the ranks, one for each, such as 0,1,2,3.", show_default="the first ones",
            rich_help_panel=_RANKS,
        ),
    ] = None  # fmt: skip
    attention: Annotated[
        str,
        typer.Option(
            help="How ranks share attention: auto, torch or xfuser; or the attention kernel of a rank, such as flash.",
            rich_help_panel=_RANKS,
        ),
    ] = "auto"


def request_fields(model: ModelOptions, ranks: RankOptions, world: int | None) -> dict[str, Any]:
    """What a request (`VideoRequest`, `BenchRequest`) calls these options; `world` ranks, None: this process.

    Raises:
        ConfigError: devices that do not fit the ranks.
    """
    return {
        "model": model_name(model.model),
        "device": model.device,
        "dtype": model.dtype,
        "compile": model.compile_model,
        "offload": model.offload,
        "world_size": world,
        "devices": parse_devices(ranks.devices, world),
        "attention": ranks.attention,
    }
