"""`livetalk demo`: the bundled portrait speaks the bundled sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import guarded, print_json, stdout
from .generate import show_result
from .parsing import DEVICE_HELP, DTYPE_HELP, JSON_HELP, MODEL_HELP, SEED_HELP, model_name


@guarded
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for what is made.")] = Path("demo"),
    model: Annotated[str, typer.Option(help=MODEL_HELP)] = "embedded",
    image: Annotated[
        Path | None, typer.Option(help="Picture of the person.", show_default="a bundled portrait")
    ] = None,
    seed: Annotated[int | None, typer.Option(help=SEED_HELP, show_default="9999")] = None,
    device: Annotated[str, typer.Option(help=DEVICE_HELP)] = "auto",
    dtype: Annotated[str, typer.Option(help=DTYPE_HELP)] = "auto",
    max_seconds: Annotated[float | None, typer.Option(help="Use only the beginning of the sentence.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
) -> int:
    """Let a bundled portrait speak, and show that its mouth follows the sound.

    Leaves demo.mp4, contact_sheet.png, mouth.png, report.json and summary.txt.
    """
    from ..production import VideoRequest, make_demo
    from .progress import ProgressLine

    settings = VideoRequest(
        audio="",
        output=folder,
        image=image,
        model=model_name(model),
        seed=seed,
        device=device,
        dtype=dtype,
        max_seconds=max_seconds,
    )
    with ProgressLine(quiet=as_json) as progress:
        made = make_demo(folder, settings, progress)
    if as_json:
        print_json({**made.report.plain(), "lip_sync": {"correlation": made.correlation, "lag": made.lag}})
        return show_result(made.report, None, quiet=True)
    console = stdout()
    console.print(made.summary.read_text(encoding="utf-8").rstrip())
    labels = {"watch": made.video, "look": made.sheet, "compare": made.plot, "facts": made.report_file}
    for label, path in labels.items():
        console.print(f"  {label:8} {path}")
    return show_result(made.report, None, quiet=made.report.status == "complete")
