"""`livetalk convert`: published pickles become safetensors, once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import guarded, print_json, stdout
from .options import Json, option
from .work_bar import work_bar

if TYPE_CHECKING:
    from ..loading.convert import Conversion


@guarded
def convert(
    path: Annotated[Path, typer.Argument(help="A .pth/.pt/.bin/.ckpt file, or the folder of a published model.")],
    out: Annotated[
        Path | None, option("Result file, or folder for a folder.", default="beside the source")
    ] = None,
    accept_unlisted: Annotated[
        bool, option("Convert a file whose hash is not on the list of known files.", None, True, "--accept-unlisted")
    ] = False,
    force: Annotated[bool, option("Write over existing results.", None, True, "--force")] = False,
    as_json: Json = False,
) -> None:
    """Turn published pickle files (.pth) into safetensors, which alone are ever loaded.

    Prints and records the sha256 of each source. Pickles are read in a separate process, weights only.
    """
    from ..loading.convert import convert as convert_files

    with work_bar(quiet=as_json) as tell:

        def hashed(file: Path, done: int, size: int) -> None:
            tell(f"hashing {file.name}", done, size)

        results = convert_files(path, out, accept_unlisted=accept_unlisted, force=force, progress=hashed)
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
