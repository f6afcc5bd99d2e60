"""What the self-correction ablation found, as JSON, a table, plots of drift over time and a sheet of frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from ..media import panels_plot, write_atomic
from .evaluate.sheets import SheetRow, draw_sheet
from .evaluate.video import EDGE_CHUNKS
from .evaluate.video_report import PANELS
from .recipes.ablation import CLAIMS, REFERENCE_ARM

Result = dict[str, dict[str, dict[str, Any]]]
"""Arm -> seed -> `video_report.to_json`, with the lips against the true opening among the ends."""

SHOWN: Final = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Chunks whose frames are kept, as shares of a rollout."""
DRIFT: Final = {"color": "colour", "identity": "likeness", "sharpness": "sharpness", "lips": "lips"}
"""Drift metrics: what the first and the last chunks are compared by."""
BOUND: Final = 0.1
_SMOOTHED = 10


def write_report(result: Result, strips: Mapping[str, Path], out: Path, chunks: int) -> None:
    """Write ablation.json, ablation.md, ablation.png, ablation-claims.png and ablation-frames.png into `out`.

    Args:
        result: Everything measured so far.
        strips: Arm -> picture with its kept frames side by side; arms without one are left out.
        out: Folder.
        chunks: Length of the rollouts.

    Raises:
        OutputError: a file cannot be written.
    """
    write_atomic(out / "ablation.json", json.dumps(result))
    write_atomic(out / "ablation.md", ablation_table(result))
    note = f"a held-out person; mean over training runs and over {_SMOOTHED} chunks"
    title = f"Drift over {chunks} chunks"
    panels_plot(_panels({a: s for a, s in result.items() if a not in CLAIMS}), out / "ablation.png", title, note)
    claims = {arm: seeds for arm, seeds in result.items() if arm in CLAIMS or arm == REFERENCE_ARM}
    if len(claims) > 1:
        panels_plot(_panels(claims), out / "ablation-claims.png", f"{title}: the reproduction's claims", note)
    rows = _frame_rows({arm: path for arm, path in strips.items() if path.is_file()}, chunks)
    if rows:
        draw_sheet(rows, out / "ablation-frames.png", f"{chunks} chunks, seed 0")


def ablation_table(result: Result) -> str:
    """Every run's first and last chunks by every drift metric and the change between them, as Markdown.

    The last column but one leaves the first chunks out, in which a student gets to where it stays.
    """
    heads = ["arm", "seed", *DRIFT.values(), "largest change", f"after {EDGE_CHUNKS} chunks", "border jump"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for arm, seeds in result.items():
        for seed, found in seeds.items():
            ends = found["ends"]
            cells = [f"{ends[name][0]:.2f} → {ends[name][1]:.2f} ({change(ends[name]):+.0%})" for name in DRIFT]
            largest = max(abs(change(ends[name])) for name in DRIFT)
            cells += [_verdict(largest), _verdict(_settled(found)), f"{found['border_jump']:.2f}"]
            lines.append(f"| {arm} | {seed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _verdict(largest: float) -> str:
    return f"{largest:.0%}{', bounded' if largest <= BOUND else ''}"


def _settled(found: Mapping[str, Any]) -> float:
    """Largest change of the curves from the second to the last `EDGE_CHUNKS` chunks; 0 where there are fewer."""
    curves = [found["curves"][name] for name in DRIFT if name in found["curves"]]
    if len(curves[0]) < 3 * EDGE_CHUNKS:
        return 0.0
    pairs = [(np.mean(c[EDGE_CHUNKS : 2 * EDGE_CHUNKS]), np.mean(c[-EDGE_CHUNKS:])) for c in curves]
    return max(abs(change((float(first), float(last)))) for first, last in pairs)


def change(ends: Sequence[float]) -> float:
    """From the first to the last chunks, as a share of the first."""
    first, last = ends
    return (last - first) / max(abs(first), 1e-6)


def lip_ends(opening: ArrayLike, meant: ArrayLike, slice_frames: int) -> tuple[float, float]:
    """Correlation of the mouth's opening [F] with the true one [F or more] over the first and over the last chunks."""
    seen = np.asarray(opening, np.float64)
    true = np.asarray(meant, np.float64)[: len(seen)]
    count = max(1, min(EDGE_CHUNKS, len(seen) // slice_frames // 3)) * slice_frames
    return _correlation(seen[:count], true[:count]), _correlation(seen[-count:], true[-count:])


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Pearson's; 0 where one of them stands still."""
    spread = float(first.std() * second.std())
    return float(((first - first.mean()) * (second - second.mean())).mean() / spread) if spread > 1e-9 else 0.0


def _panels(result: Result) -> dict[str, dict[str, tuple[ArrayLike, ArrayLike]]]:
    def curve(seeds: dict[str, dict[str, Any]], name: str) -> tuple[ArrayLike, ArrayLike]:
        values = np.mean([found["curves"][name] for found in seeds.values()], axis=0)
        width = min(_SMOOTHED, len(values))
        smooth = np.convolve(values, np.full(width, 1 / width), mode="valid")
        seconds = next(iter(seeds.values()))["seconds"]
        return seconds[width - 1 :], smooth

    return {label: {arm: curve(seeds, name) for arm, seeds in result.items()} for name, label in PANELS.items()}


def _frame_rows(strips: Mapping[str, Path], chunks: int) -> list[SheetRow]:
    captions = ["reference", *(f"chunk {round(share * (chunks - 1)) + 1}" for share in SHOWN)]
    rows: list[SheetRow] = []
    for arm, path in strips.items():
        with Image.open(path) as opened:
            strip = np.asarray(opened.convert("RGB"))
        frames = np.split(strip, strip.shape[1] // strip.shape[0], axis=1)
        rows.append(SheetRow(arm, frames, captions if not rows else ()))
    return rows
