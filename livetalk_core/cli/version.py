"""`livetalk version`."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
from .console import guarded, print_json
from .parsing import JSON_HELP


@guarded
def version(as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"livetalk": __version__})
    else:
        typer.echo(f"livetalk {__version__}")
