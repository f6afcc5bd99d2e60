"""`livetalk version`."""

from __future__ import annotations

import typer

from .. import __version__
from .console import guarded, print_json
from .options import Json


@guarded
def version(as_json: Json = False) -> None:
    """Print the version."""
    if as_json:
        print_json({"livetalk": __version__})
    else:
        typer.echo(f"livetalk {__version__}")
