"""One PNG that shows a whole video at a glance, collected while it streams."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .atomic_file import AtomicFile, output_error

_CELL = 256
# How many times more frames are held than shown: more makes the steps in time more even.
_SPARE = 4
_GAP = 14
_MARGIN = 28
_LABEL = 30
_CORNER = 10
_TITLE = 52
_PAPER = (250, 250, 248)
_INK = (38, 40, 46)
_FAINT = (118, 122, 130)


class ContactSheet:
    """Keep evenly spaced thumbnails of a stream whose length is not known beforehand.

    Whenever four times the needed frames are held, every second one is dropped and the interval doubles, so
    memory stays constant.

    Args:
        rows, columns: Layout of the sheet.
        fps: Frames per second, for the time stamps.
    """

    def __init__(self, rows: int = 3, columns: int = 5, fps: int = 25) -> None:
        self.rows, self.columns, self.fps = rows, columns, fps
        self._interval = 1
        self._kept: dict[int, Image.Image] = {}
        self._next = 0
        self._last: tuple[int, NDArray[np.uint8]] | None = None

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Show the next frames of the stream, uint8 [F, H, W, 3]."""
        for frame in frames:
            if self._next % self._interval == 0:
                self._kept[self._next] = _thumbnail(frame)
                if len(self._kept) >= _SPARE * self.rows * self.columns:
                    self._interval *= 2
                    self._kept = {k: v for k, v in self._kept.items() if k % self._interval == 0}
            self._next += 1
        if len(frames):
            self._last = (self._next - 1, frames[-1].copy())

    def frames(self) -> list[tuple[float, Image.Image]]:
        """The chosen (seconds, thumbnail), at most rows * columns, from the first frame to the last."""
        kept = dict(self._kept)
        if self._last is not None:
            kept[self._last[0]] = _thumbnail(self._last[1])
        indices = sorted(kept)
        count = min(len(indices), self.rows * self.columns)
        if not count:
            return []
        chosen = [indices[round(place)] for place in np.linspace(0, len(indices) - 1, count)]
        return [(index / self.fps, kept[index]) for index in chosen]

    def save(self, path: str | os.PathLike[str], title: str = "") -> Path:
        """Write the sheet as PNG.

        Raises:
            OutputError: the path cannot be written.
            ValueError: no frame was added.
        """
        return contact_sheet(self.frames(), path, self.columns, title)


def contact_sheet(
    frames: Iterable[tuple[float, Image.Image | NDArray[np.uint8]]],
    path: str | os.PathLike[str],
    columns: int = 5,
    title: str = "",
) -> Path:
    """Lay out frames with their time stamps and write a PNG.

    Args:
        frames: (seconds, picture) in order; pictures of one size, PIL or uint8 [H, W, 3].
        path: Where the PNG goes.
        columns: Pictures side by side.
        title: Heading; none if empty.

    Raises:
        OutputError: the path cannot be written.
        ValueError: no frames.
    """
    cells = [(time, _thumbnail(picture)) for time, picture in frames]
    if not cells:
        raise ValueError("a contact sheet needs at least one frame")
    sheet = _draw(cells, min(columns, len(cells)), title)
    with AtomicFile(path) as file:
        try:
            sheet.save(file.temporary, format="PNG", optimize=True)
        except OSError as error:
            raise output_error(path, error) from error
    return file.path


def _thumbnail(picture: Image.Image | NDArray[np.uint8]) -> Image.Image:
    """Scale so that the longer side is one cell."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    if max(image.size) == _CELL:
        return image
    scale = _CELL / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.LANCZOS)


def _draw(cells: list[tuple[float, Image.Image]], columns: int, title: str) -> Image.Image:
    width, height = cells[0][1].size
    rows = math.ceil(len(cells) / columns)
    top = _MARGIN + (_TITLE if title else 0)
    sheet_width = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    sheet_height = top + rows * (height + _LABEL) + (rows - 1) * _GAP + _MARGIN - _GAP // 2
    sheet = Image.new("RGB", (sheet_width, sheet_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text(
            (_MARGIN, _MARGIN - 4), title, fill=_INK, font=_title_font(title, sheet_width - 2 * _MARGIN)
        )
    mask = _rounded_mask((width, height))
    label_font = ImageFont.load_default(15)
    long = cells[-1][0] >= 60
    for number, (time, picture) in enumerate(cells):
        x = _MARGIN + number % columns * (width + _GAP)
        y = top + number // columns * (height + _LABEL + _GAP)
        sheet.paste(picture, (x, y), mask)
        draw.text(
            (x + width / 2, y + height + 6), _stamp(time, long), fill=_FAINT, font=label_font, anchor="mt"
        )
    return sheet


def _title_font(title: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    size = 26
    while size > 12 and ImageFont.load_default(size).getlength(title) > width:
        size -= 1
    return ImageFont.load_default(size)


def _rounded_mask(size: tuple[int, int]) -> Image.Image:
    # Drawn four times larger and reduced, because Pillow draws without smoothing.
    large = Image.new("L", (size[0] * 4, size[1] * 4), 0)
    ImageDraw.Draw(large).rounded_rectangle((0, 0, large.width - 1, large.height - 1), _CORNER * 4, fill=255)
    return large.resize(size, Image.Resampling.LANCZOS)


def _stamp(seconds: float, long: bool) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}" if long else f"{seconds:.2f} s"
