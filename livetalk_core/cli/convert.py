"""`livetalk convert`: published pickles become safetensors, once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import guarded, print_json, stderr, stdout
from .options import Json

if TYPE_CHECKING:
    from ..loading.convert import Conversion, Progress


@guarded
def convert(
    path: Annotated[Path, typer.Argument(help="A .pth/.pt/.bin/.ckpt file, or the folder of a published model.")],
    out: Annotated[
        Path | None, typer.Option(help="Result file, or folder for a folder.", show_default="beside the source")
    ] = None,
    accept_unlisted: Annotated[
        bool, typer.Option(help="Convert a file whose hash is not on the list of known files.")
    ] = False,
    force: Annotated[bool, typer.Option(help="Write over existing results.")] = False,
    as_json: Json = False,
) -> None:
    """Turn published pickle files (.pth) into safetensors, which alone are ever loaded.

    Prints and records the sha256 of each source. Pickles are read in a separate process, weights only.
    """
    from ..loading.convert import convert as convert_files

    with _progress(as_json) as tell:
        results = convert_files(path, out, accept_unlisted=accept_unlisted, force=force, progress=tell)
    if as_json:
        print_json({"files": [asdict(result) for result in results]})
    else:
        for result in results:
            _show(result)


def _show(result: Conversion) -> None:
    console = stdout()
    if result.kept:
        console.print(f"{result.target}: kept, {result.tensors} tensors (--force converts again)")
        return
    known = "on the list of known files" if result.listed else "not on the list of known files"
    console.print(f"{result.target}: {result.tensors} tensors")
    console.print(f"  sha256 {result.sha256} of {Path(result.source).name}, {known}")


@contextmanager
def _progress(quiet: bool) -> Iterator[Progress | None]:
    """A bar while hashing, on a terminal."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress as Bar

    with Bar(console=stderr(), transient=True) as bar:
        tasks: dict[Path, object] = {}

        def tell(file: Path, done: int, size: int) -> None:
            if file not in tasks:
                tasks[file] = bar.add_task(f"hashing {file.name}", total=size)
            bar.update(tasks[file], completed=done)  # type: ignore[arg-type]

        yield tell
