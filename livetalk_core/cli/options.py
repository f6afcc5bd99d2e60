"""Options that several commands share, alone or in groups (see `grouped`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config import Offload
from .parsing import model_name, parse_devices

_MODEL, _RANKS = "Model and device", "Several GPUs"

MODEL_HELP = "Model folder; 'embedded' is the small one in the package."
SIZE_HELP = "Width x height in pixels, such as 448x768; multiples of 16."
STEPS_HELP = "Sampling steps."
SEED_HELP = "Same seed, same frames."
IMAGE_HELP = "Picture of the person."


def option(help: str, panel: str | None = None, default: str | bool = True, *names: str) -> Any:
    """An option of a command.

    Args:
        help: What it is for.
        panel: Heading that it stands under on the help page; None: among the others.
        default: What stands for its default there: True the value itself, False nothing.
        names: Other names than that of the parameter.
    """
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=default)


Json = Annotated[bool, option("Print JSON on standard output.", None, True, "--json")]
Size = Annotated[str | None, option(SIZE_HELP, default="the model's")]
Steps = Annotated[int | None, option(STEPS_HELP, default="the model's")]
Seed = Annotated[int | None, option(SEED_HELP, default="9999")]
HostsFile = Annotated[
    Path | None,
    option(
        "Spread the ranks over several hosts of a trusted network: a JSON file such as"
        ' {"nodes": 2, "ranks_per_node": 8, "master": "10.0.0.1", "interface": "eth0"}.',
        _RANKS, True, "--hosts",
    ),
]  # fmt: skip


@dataclass(frozen=True)
class ModelOptions:
    """A model, where it computes, and in which number format."""

    model: Annotated[str, option(MODEL_HELP, _MODEL)] = "embedded"
    device: Annotated[str, option("auto, cpu, cuda or cuda:N.", _MODEL)] = "auto"
    dtype: Annotated[
        str, option("Number format: auto (bf16 where the hardware has it), fp32 or bf16.", _MODEL)
    ] = "auto"
    offload: Annotated[
        Offload,
        option(
            "'encoders' keeps text and image encoder in host memory, 'none' nothing, auto what the device is too"
            " small for.",
            _MODEL,
        ),
    ] = "auto"
    compile_model: Annotated[
        bool, option("Compile the model first: pays for long videos.", _MODEL, True, "--compile")
    ] = False


@dataclass(frozen=True)
class RankOptions:
    """The processes, one per GPU, that share the work."""

    world_size: Annotated[
        int | None,
        option(
            "Ranks that compute: processes of a daemon, one per GPU. 'generate' joins a daemon that 'livetalk daemon"
            " start' left running with the same options.",
            _RANKS, "this process; one rank for 'daemon start'",
        ),
    ] = None  # fmt: skip
    devices: Annotated[
        str | None, option("GPUs of the ranks, one for each, such as 0,1,2,3.", _RANKS, "the first ones")
    ] = None
    attention: Annotated[
        str,
        option(
            "How ranks share attention: auto, torch or xfuser; or the attention kernel of a rank, such as flash.",
            _RANKS,
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
