"""Measures of videos as JSON for programs, a table and a plot for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...media import panels_plot
from .video import VideoMeasures

PANELS = {
    "color": "Colour: distance to the reference (3 is visible)",
    "identity": "Likeness of what stands still (1 is the same)",
    "sharpness": "Sharpness over the reference's",
    "flicker": "Flicker of what stands still, steps of 255",
    "jump": "Jump at chunk borders over change inside",
}


def to_json(measures: VideoMeasures) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "name": measures.name,
        "frames": measures.frames,
        "lips": measures.lips,
        "lag": measures.lag,
        "syncnet": None if measures.sync is None else asdict(measures.sync),
        "border_jump": measures.border_jump,
        "ends": {name: list(values) for name, values in measures.ends().items()},
        "seconds": [round(float(s), 3) for s in measures.seconds],
        "curves": {name: [round(float(v), 5) for v in getattr(measures, name)] for name in PANELS},
    }


def table_rows(measures: Sequence[VideoMeasures]) -> list[list[str]]:
    """One row per video: length, lips, border jump, then first -> last chunks of each curve, SyncNet where known."""
    rows = []
    for each in measures:
        ends = each.ends()
        lips = "no sound" if each.lips is None else f"{each.lips:.2f} ({each.lag:+d})"
        curves = [f"{first:.2f}→{last:.2f}" for first, last in (ends[name] for name in TABLE_CURVES)]
        row = [each.name, f"{each.frames / 25:.1f} s", lips, f"{each.border_jump:.2f}", *curves]
        if each.sync is not None:
            row.append(f"{each.sync.confidence:.2f} / {each.sync.distance:.2f} ({each.sync.lag:+d})")
        rows.append(row)
    return rows


TABLE_CURVES = ("color", "identity", "sharpness", "flicker")
SYNC_HEAD = "SyncNet C / D (lag)"
TABLE_HEAD = ("video", "length", "lips", "borders", "colour", "likeness", "sharpness", "flicker")


def plot_videos(measures: Sequence[VideoMeasures], path: Path, title: str) -> Path:
    """Draw all curves of all videos.

    Raises:
        OutputError: the path cannot be written.
    """
    panels = {
        label: {each.name: (each.seconds, getattr(each, name)) for each in measures} for name, label in PANELS.items()
    }
    return panels_plot(panels, path, title, "per chunk; colour, likeness and sharpness against the reference picture")
