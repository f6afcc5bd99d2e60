"""Pictures of an evaluation: true and generated frames side by side, over clips and over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ...media import AtomicFile
from .cases import FPS, EvaluationCase, Frames

_CELL = 128
_GAP = 8
_GROUP_GAP = 18
_MARGIN = 28
_TITLE = 48
_SIDE = 150
_LABEL = 22
_LABEL_SIZE = 18
_CORNER = 10
_PAPER, _INK, _FAINT = (250, 250, 248), (38, 40, 46), (118, 122, 130)


@dataclass(frozen=True)
class SheetRow:
    """One row: label, pictures, a caption under each picture (or none), and whether a new group begins."""

    label: str
    pictures: Sequence[Frames]
    captions: Sequence[str] = ()
    note: str = ""
    begins_group: bool = False


def telling_frames(opening: NDArray[np.float32], count: int) -> list[int]:
    """Frames over a clip [F] where the mouth should be, in turn, wide open and closed: `count`, or all of fewer."""
    bounds = np.linspace(0, len(opening), min(count, len(opening)) + 1).round().astype(int)
    chosen = []
    for number, (first, stop) in enumerate(pairwise(bounds)):
        part = opening[first:stop]
        chosen.append(int(first) + int(np.argmin(part) if number % 2 else np.argmax(part)))
    return chosen


def comparison_sheet(
    cases: Sequence[EvaluationCase],
    videos: Sequence[Frames],
    notes: Sequence[str],
    path: Path,
    columns: int = 9,
) -> Path:
    """For each case the reference and two rows of frames of the same moments: true above, generated below.

    Raises:
        OutputError: the path cannot be written.
    """
    rows: list[SheetRow] = []
    for case, video, note in zip(cases, videos, notes, strict=True):
        frames = telling_frames(case.opening[: len(video)], columns)
        captions = ["reference", *(f"{frame / FPS:.2f} s" for frame in frames)]
        truth = [case.reference, *(case.truth[frame] for frame in frames)]
        made = [case.reference, *(video[frame] for frame in frames)]
        voice = f"{case.speech.voice}\ntrue"
        rows.append(SheetRow(case.speech.synthesiser, truth, note=voice, begins_group=True))
        rows.append(SheetRow("", made, captions, f"generated\n{note}"))
    return draw_sheet(rows, path, "Held-out people and voices")


def rollout_sheet(
    case: EvaluationCase, video: Frames, slice_frames: int, path: Path, columns: int = 9, between: int = 4
) -> Path:
    """First and last chunk of a long video, true and generated, with chunks in between.

    Raises:
        OutputError: the path cannot be written.
    """
    full = max(1, len(video) // slice_frames)
    chunks = sorted({int(chunk) for chunk in np.linspace(0, full - 1, between + 2).round()})
    rows = []
    for chunk in chunks:
        start = chunk * slice_frames
        stop = min(start + slice_frames, len(video))
        frames = [start + frame for frame in telling_frames(case.opening[start:stop], columns)]
        at = f"{start / FPS:.1f} s"
        if chunk in (chunks[0], chunks[-1]):
            rows.append(SheetRow(f"chunk {chunk + 1}", [case.truth[f] for f in frames], (), f"{at}\ntrue", True))
            rows.append(SheetRow("", [video[f] for f in frames], (), "generated"))
        else:
            rows.append(SheetRow(f"chunk {chunk + 1}", [video[f] for f in frames], (), f"{at}\ngenerated", True))
    return draw_sheet(rows, path, f"One stream of {len(video) / FPS:.0f} s, first to last chunk")


def draw_sheet(
    rows: Sequence[SheetRow], path: str | os.PathLike[str], title: str, breaks: Sequence[int] = ()
) -> Path:
    """Lay out rows of pictures with labels and write a PNG, or a JPEG where the path says so.

    Args:
        rows: From top to bottom.
        path: Where it goes.
        title: Heading.
        breaks: Columns before which there is more room.

    Raises:
        OutputError: the path cannot be written.
    """
    columns = max(len(row.pictures) for row in rows)
    heights = [_CELL + (_LABEL if row.captions else 0) for row in rows]
    gaps = [0, *(_GROUP_GAP if row.begins_group else _GAP for row in rows[1:])]
    tops = _MARGIN + _TITLE + np.cumsum(np.array(gaps) + np.array([0, *heights[:-1]]))
    label = ImageFont.load_default(_LABEL_SIZE)
    side = max(_SIDE, *(int(label.getlength(row.label)) + _GROUP_GAP for row in rows))
    lefts = [_MARGIN + side + n * (_CELL + _GAP) + sum(n >= b for b in breaks) * _GROUP_GAP for n in range(columns)]
    width = lefts[-1] + _CELL + _MARGIN
    sheet = Image.new("RGB", (width, int(tops[-1]) + heights[-1] + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 6), title, fill=_INK, font=ImageFont.load_default(26))
    for row, top in zip(rows, tops, strict=True):
        _draw_row(sheet, draw, row, int(top), lefts)
    kind = "JPEG" if Path(path).suffix.lower() in (".jpg", ".jpeg") else "PNG"
    with AtomicFile(path) as file:
        sheet.save(file.temporary, format=kind, quality=88)
    return file.path


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: SheetRow, top: int, lefts: Sequence[int]) -> None:
    draw.text((_MARGIN, top + 6), row.label, fill=_INK, font=ImageFont.load_default(_LABEL_SIZE))
    below = 32 if row.label else 6
    draw.multiline_text((_MARGIN, top + below), row.note, fill=_FAINT, font=ImageFont.load_default(14), spacing=5)
    mask = Image.new("L", (_CELL * 4, _CELL * 4), 0)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, _CELL * 4 - 1, _CELL * 4 - 1), _CORNER * 4, fill=255)
    mask = mask.resize((_CELL, _CELL), Image.Resampling.LANCZOS)
    for column, (left, picture) in enumerate(zip(lefts, row.pictures, strict=False)):
        cell = Image.fromarray(np.ascontiguousarray(picture)).resize((_CELL, _CELL), Image.Resampling.LANCZOS)
        sheet.paste(cell, (left, top), mask)
        if column < len(row.captions):
            place = (left + _CELL / 2, top + _CELL + 5)
            draw.text(place, row.captions[column], fill=_FAINT, font=ImageFont.load_default(13), anchor="mt")
