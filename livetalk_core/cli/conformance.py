"""`livetalk conformance`: does this engine compute the published function?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import UNEXPECTED, guarded, stdout
from .options import option

if TYPE_CHECKING:
    from ..conformance import ConformanceReport


@guarded
def conformance(
    directory: Annotated[Path, typer.Argument(help="Folder of recorded vectors with a meta.json.", metavar="DIR")],
    json_file: Annotated[Path | None, option("Write the result to this file as JSON.", None, True, "--json")] = None,
    dump: Annotated[
        Path | None, option("Write every computed tensor to this folder as safetensors.")
    ] = None,
) -> int:
    """Compare every module and whole chunks with recorded results of the published code.

    Exit code 1 if anything is outside its tolerance.
    """
    from ..media import check_writable, write_atomic

    if json_file is not None:
        check_writable(json_file)
    from ..conformance import run

    report = run(directory, dump)
    if json_file is not None:
        write_atomic(json_file, report.to_json() + "\n")
    _show(report)
    return 0 if report.ok else UNEXPECTED


def _show(report: ConformanceReport) -> None:
    from rich.table import Table

    table = Table("component", "tensor", "max abs", "error", "limit", "verdict", box=None, pad_edge=False)
    for row in report.rows:
        error = row.rel if row.measure == "rel" else row.max_abs
        verdict = "[green]pass[/]" if row.ok else "[bold red]MISS[/]"
        kind = "relative" if row.measure == "rel" else "absolute"
        cells = (row.component, row.tensor, f"{row.max_abs:.2e}", f"{error:.2e}", f"{row.limit:g} {kind}", verdict)
        table.add_row(*cells)
    console = stdout()
    console.print(table)
    for line in report.absent:
        console.print(f"absent   {line}", style="yellow")
    passed = sum(row.ok for row in report.rows)
    style = "green" if report.ok else "bold red"
    console.print(f"{passed} of {len(report.rows)} tensors within tolerance", style=style)
