"""`livetalk doctor`: what is installed, what is missing, what this machine can run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import UNEXPECTED, guarded, print_json, stderr, stdout
from .options import Json, option

if TYPE_CHECKING:
    from ..diagnostics.doctor import Diagnosis

_MARKS = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}


@guarded
def doctor(
    models: Annotated[
        list[Path] | None,
        typer.Argument(help="Model folders, or folders of models, to check.", show_default="what is in ./models"),
    ] = None,
    timing: Annotated[bool, option("Load the embedded model and time it.")] = True,
    as_json: Json = False,
) -> int:
    """Say what is installed, what is missing and what this machine can run, with the fix for each problem.

    Exit code 1 if there is a problem.
    """
    from ..diagnostics.doctor import diagnose

    if not as_json and timing:
        stderr().print("looking around, and timing the embedded model ...", style="dim")
    diagnosis = diagnose(models or None, timing)
    if as_json:
        print_json(diagnosis.plain())
    else:
        _show(diagnosis)
    return 0 if diagnosis.ok else UNEXPECTED


def _show(diagnosis: Diagnosis) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = stdout()
    table = Table("", "what", "how it is", "what to do", box=None, pad_edge=False)
    for finding in diagnosis.findings:
        table.add_row(_MARKS[finding.status], escape(finding.subject), escape(finding.text), escape(finding.fix))
    console.print(table)
    console.print()
    console.print("[bold]What this machine can run[/]")
    able = Table("model", "on", "runs", "real time", "because", box=None, pad_edge=False)
    for row in diagnosis.capabilities:
        runs, live = ("[green]yes[/]" if flag else "[red]no[/]" for flag in (row.runs, row.real_time))
        able.add_row(row.model, row.place, runs, live, escape(row.text))
    console.print(able)
    problems = sum(finding.status == "problem" for finding in diagnosis.findings)
    console.print()
    console.print("[green]All is well.[/]" if not problems else f"[bold red]{problems} problem(s), see above.[/]")
