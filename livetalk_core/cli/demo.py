"""`livetalk demo`: the bundled portrait speaks the bundled sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from .console import guarded, print_json, stdout
from .generate import show_result
from .groups import grouped
from .options import IMAGE_HELP, Json, ModelOptions, Seed, option
from .parsing import model_name


@guarded
@grouped
def demo(
    model: ModelOptions,
    folder: Annotated[Path, option("Folder for what is made.", None, True, "--out")] = Path("demo"),
    image: Annotated[Path | None, option(IMAGE_HELP, default="a bundled portrait")] = None,
    seed: Seed = None,
    max_seconds: Annotated[float | None, option("Use only the beginning of the sentence.")] = None,
    as_json: Json = False,
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
        model=model_name(model.model),
        seed=seed,
        device=model.device,
        dtype=model.dtype,
        compile=model.compile_model,
        offload=model.offload,
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
