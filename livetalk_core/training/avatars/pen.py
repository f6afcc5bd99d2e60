"""Thin drawing helper over a skia canvas: filled shapes and round strokes in RGB colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .identity import RGB

if TYPE_CHECKING:
    import skia

Segment = tuple[float, ...]
"""Path segment by length: 2 numbers are a line, 4 a quadratic and 6 a cubic Bezier curve."""


class Pen:
    """Draws on one skia canvas; coordinates are in the units of the current transform."""

    def __init__(self, canvas: skia.Canvas) -> None:
        import skia

        self._skia = skia
        self.canvas = canvas

    def path(self, start: tuple[float, float], *segments: Segment, closed: bool = True) -> skia.Path:
        """Build a path from its start point and segments."""
        path = self._skia.Path()
        path.moveTo(*start)
        for segment in segments:
            if len(segment) == 2:
                path.lineTo(*segment)
            elif len(segment) == 4:
                path.quadTo(*segment)
            else:
                path.cubicTo(*segment)
        if closed:
            path.close()
        return path

    def fill(self, path: skia.Path, colour: RGB, alpha: int = 255) -> None:
        """Fill ``path``."""
        self.canvas.drawPath(path, self._paint(colour, alpha))

    def stroke(self, path: skia.Path, colour: RGB, width: float) -> None:
        """Stroke ``path`` with round caps and joins."""
        skia = self._skia
        paint = self._paint(colour, 255)
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeWidth(width)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        self.canvas.drawPath(path, paint)

    def line(self, colour: RGB, width: float, start: tuple[float, float], *segments: Segment) -> None:
        """Stroke an open path."""
        self.stroke(self.path(start, *segments, closed=False), colour, width)

    def shape(self, colour: RGB, start: tuple[float, float], *segments: Segment) -> None:
        """Fill a closed path."""
        self.fill(self.path(start, *segments), colour)

    def oval(
        self, colour: RGB, x: float, y: float, radius_x: float, radius_y: float, alpha: int = 255
    ) -> None:
        """Fill an axis-aligned ellipse given by centre and radii."""
        box = self._skia.Rect(x - radius_x, y - radius_y, x + radius_x, y + radius_y)
        self.canvas.drawOval(box, self._paint(colour, alpha))

    def circle(self, colour: RGB, x: float, y: float, radius: float, alpha: int = 255) -> None:
        """Fill a circle."""
        self.canvas.drawCircle(x, y, radius, self._paint(colour, alpha))

    def box(
        self, colour: RGB, left: float, top: float, right: float, bottom: float, radius: float = 0.0
    ) -> None:
        """Fill a rectangle with rounded corners."""
        rect = self._skia.Rect(left, top, right, bottom)
        self.canvas.drawRoundRect(rect, radius, radius, self._paint(colour, 255))

    def frame(self, colour: RGB, width: float, box: tuple[float, float, float, float], radius: float) -> None:
        """Stroke a rounded rectangle given as (left, top, right, bottom)."""
        path = self._skia.Path()
        path.addRoundRect(self._skia.Rect(*box), radius, radius)
        self.stroke(path, colour, width)

    def gradient(self, top: RGB, bottom: RGB, height: float) -> None:
        """Cover the canvas with a vertical gradient from 0 to ``height``."""
        skia = self._skia
        colours = [skia.Color(*top), skia.Color(*bottom)]
        shader = skia.GradientShader.MakeLinear([(0.0, 0.0), (0.0, height)], colours)
        self.canvas.drawPaint(skia.Paint(Shader=shader))

    @contextmanager
    def placed(self, x: float, y: float, degrees: float = 0.0, pivot: float = 0.0) -> Iterator[None]:
        """Move the origin to (x, y), then rotate about (0, pivot)."""
        self.canvas.save()
        self.canvas.translate(x, y)
        if degrees:
            self.canvas.rotate(degrees, 0.0, pivot)
        yield
        self.canvas.restore()

    @contextmanager
    def inside(self, path: skia.Path) -> Iterator[None]:
        """Clip to ``path`` with smooth edges."""
        self.canvas.save()
        self.canvas.clipPath(path, True)
        yield
        self.canvas.restore()

    def _paint(self, colour: RGB, alpha: int) -> skia.Paint:
        return self._skia.Paint(AntiAlias=True, Color=self._skia.ColorSetARGB(alpha, *colour))
