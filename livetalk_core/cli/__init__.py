"""The command line: parse, build a request, call one function, show the result."""

from __future__ import annotations

import os

import typer

from .bench import bench
from .conformance import conformance
from .convert import convert
from .daemon import daemon_app
from .demo import demo
from .doctor import doctor
from .evaluate import evaluate
from .generate import generate
from .plan import plan
from .train import train
from .version import version

app = typer.Typer(
    name="livetalk",
    help="Speech and one picture in, a person who speaks it out, chunk by chunk.",
    epilog="Start with 'livetalk demo'. Every command explains itself: 'livetalk generate --help'.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (generate, demo, doctor, bench, evaluate, plan, convert, conformance, version):
    app.command()(_command)
app.add_typer(daemon_app)
app.add_typer(train)


def main() -> None:
    """Entry of the `livetalk` console script."""
    # The model libraries ask for nothing from the network, and say little that helps here.
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    app()


_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
