"""Hair styles of the avatar as a layer behind the body and a layer in front of the face."""

from __future__ import annotations

from .identity import Identity, mix
from .pen import Pen, Segment

HAIRLESS = frozenset({"bald", "buzz", "cap", "scarf"})
"""Styles without a front layer of hair strands."""

EAR_COVERING = frozenset({"long", "waves", "bob", "scarf"})
"""Styles that hide the ears."""

_CURLS_FRONT = ((-31, -27, 10), (-21, -37, 11), (-7, -42, 12), (8, -42, 12), (22, -37, 11), (31, -27, 10))
_CURLS_BACK = ((-37, -18, 12), (-39, -2, 12), (-37, 13, 10), (37, -18, 12), (39, -2, 12), (37, 13, 10))


def draw_back_hair(pen: Pen, who: Identity) -> None:
    """Draw what lies behind the neck; origin is the head centre."""
    fw, dark = who.face_width, who.hair_shade
    style = who.hair_style
    if style == "bun":
        pen.circle(dark, 0.0, -43.0, 12.5)
    elif style == "long":
        pen.shape(
            dark,
            (-fw - 5, -8),
            (-fw - 6, -60, fw + 6, -60, fw + 5, -8),
            (fw + 8, 24, fw + 10, 44, fw + 4, 62),
            (-fw - 4, 62),
            (-fw - 10, 44, -fw - 8, 24, -fw - 5, -8),
        )
    elif style == "waves":
        for side in (-1, 1):
            for x, y, radius in ((36, -14, 14), (41, 4, 13), (38, 21, 14), (43, 38, 14), (38, 54, 13)):
                pen.circle(dark, side * x, y, radius)
    elif style == "curly":
        for x, y, radius in _CURLS_BACK:
            pen.circle(dark, x, y, radius)
    elif style == "afro":
        pen.oval(dark, 0.0, -14.0, fw + 17, 44.0)
    elif style == "bob":
        pen.shape(
            dark,
            (-fw - 6, -6),
            (-fw - 8, -60, fw + 8, -60, fw + 6, -6),
            (fw + 9, 14, fw + 7, 34, fw - 8, 35),
            (-fw + 8, 35),
            (-fw - 7, 34, -fw - 9, 14, -fw - 6, -6),
        )
    elif style == "scarf":
        pen.oval(who.accent, 0.0, -4.0, fw + 9, 47.0)


def draw_front_hair(pen: Pen, who: Identity) -> None:
    """Draw hair, cap or scarf over the forehead; origin is the head centre."""
    style = who.hair_style
    if style == "buzz":
        _buzz(pen, who)
    elif style == "cap":
        _cap(pen, who)
    elif style == "scarf":
        _scarf(pen, who)
    elif style == "curly":
        _dome(pen, who, 3.0, 47.0, -4.0, _round_line(who))
        for x, y, radius in _CURLS_FRONT:
            pen.circle(who.hair, x, y, radius)
        pen.line(who.hair_shine, 3.2, (-20.0, -42.0), (-16.0, -47.0, -9.0, -48.0))
    elif style == "afro":
        _dome(pen, who, 9.0, 56.0, -6.0, _round_line(who))
        pen.line(who.hair_shine, 3.6, (-26.0, -40.0), (-19.0, -50.0, -7.0, -52.0))
    elif style == "quiff":
        _quiff(pen, who)
    elif style != "bald":
        _strands(pen, who)


def _dome(
    pen: Pen, who: Identity, margin: float, top: float, side: float, hairline: tuple[Segment, ...]
) -> None:
    """Fill the shell between the outline of the hair and ``hairline`` (right temple to left temple)."""
    outer = who.face_width + margin
    peak = -(top + 0.25 * side) / 0.75
    pen.shape(who.hair, (-outer, side), (-outer - 0.5, peak, outer + 0.5, peak, outer, side), *hairline)


def _round_line(who: Identity) -> tuple[Segment, ...]:
    fw = who.face_width
    return ((fw - 1.5, -2.0), (fw - 4.0, -32.0, -fw + 4.0, -32.0, -fw + 1.5, -2.0))


def _fringe(who: Identity) -> tuple[Segment, ...]:
    fw = who.face_width
    if who.fringe == "swept":
        return ((fw - 1, 0), (fw - 3, -16, 12, -18, -12, -31), (-16, -23, -fw + 5, -18, -fw + 1, 0))
    if who.fringe == "bangs":
        return (
            (fw - 1, 0),
            (fw - 2, -8, fw - 4, -16, fw - 8, -19),
            (8, -22, -8, -22, -fw + 8, -19),
            (-fw + 4, -16, -fw + 2, -8, -fw + 1, 0),
        )
    if who.fringe == "middle":
        return ((fw - 1, 0), (fw - 3, -18, 11, -21, 0, -34), (-11, -21, -fw + 3, -18, -fw + 1, 0))
    return _round_line(who)


def _strands(pen: Pen, who: Identity) -> None:
    """Draw crop, side part, bun, long, waves and bob."""
    low = who.hair_style in ("long", "waves", "bob")
    margin = {"long": 5.0, "waves": 5.5, "bob": 7.0, "bun": 2.5}.get(who.hair_style, 2.8)
    hairline = _fringe(who)
    if who.hair_style == "side_part":
        fw = who.face_width
        hairline = (
            (fw - 1, -4),
            (fw - 4, -20, 20, -17, 6, -19),
            (-6, -20, -18, -25, -21, -34),
            (-25, -26, -fw + 3, -20, -fw + 1, -4),
        )
    _dome(pen, who, margin, 46.0 if low else 45.0, 14.0 if low else 2.0, hairline)
    if low:
        _side_locks(pen, who, margin)
    pen.line(who.hair_shine, 3.4, (-22.0, -35.5), (-16.0, -40.0, -6.0, -41.0))


def _side_locks(pen: Pen, who: Identity, margin: float) -> None:
    outer, inner = who.face_width + margin, who.face_width - 3.5
    end = {"long": 54.0, "waves": 42.0}.get(who.hair_style, 27.0)
    for side in (-1, 1):
        pen.shape(
            who.hair,
            (side * (who.face_width - 1), -4),
            (side * (outer - 2), 2),
            (side * outer, 13),
            (side * (outer + 2), 24, side * (outer + 2), end - 12, side * (outer - 2), end),
            (side * (inner + 4), end - 4, side * (inner + 1), 20, side * (who.face_width - 1), -4),
        )


def _quiff(pen: Pen, who: Identity) -> None:
    fw = who.face_width
    _dome(pen, who, 2.2, 43.0, -2.0, _round_line(who))
    pen.shape(
        who.hair,
        (-fw + 3, -20),
        (-fw - 4, -44, -18, -50, 2, -51),
        (22, -54, fw + 2, -47, fw - 2, -24),
        (fw - 8, -31, 14, -32, 2, -31),
        (-12, -30, -fw + 10, -27, -fw + 3, -20),
    )
    pen.line(who.hair_shine, 3.4, (-20.0, -40.0), (-10.0, -46.0, 6.0, -45.0))


def _buzz(pen: Pen, who: Identity) -> None:
    _dome(
        pen,
        who,
        0.6,
        40.6,
        -8.0,
        (
            (who.face_width - 3, -12),
            (22, -33, 16, -30, 12, -30),
            (-12, -30),
            (-16, -30, -22, -33, -who.face_width + 3, -12),
        ),
    )


def _cap(pen: Pen, who: Identity) -> None:
    fw = who.face_width
    for side in (-1, 1):
        pen.oval(who.hair, side * (fw - 1.5), -16.0, 3.6, 12.0)
    outer = fw + 3
    pen.shape(who.clothes, (-outer, -21), (-outer, -64, outer, -64, outer, -21), (0, -27, -outer, -21))
    pen.shape(
        who.clothes_shade,
        (-outer - 1, -20),
        (-24, -33, 24, -33, outer + 1, -20),
        (22, -25, -22, -25, -outer - 1, -20),
    )
    pen.circle(who.accent, 0.0, -39.5, 6.0)


def _scarf(pen: Pen, who: Identity) -> None:
    fw = who.face_width
    outer = fw + 9
    pen.shape(
        who.accent,
        (-outer, -4),
        (-outer, -66, outer, -66, outer, -4),
        (outer, 20, fw - 2, 32, fw - 9, 37),
        (fw + 2, 20, fw, 0, fw - 3, -8),
        (fw - 6, -33, -fw + 6, -33, -fw + 3, -8),
        (-fw, 0, -fw - 2, 20, -fw + 9, 37),
        (-fw + 2, 32, -outer, 20, -outer, -4),
    )


def draw_scarf_wrap(pen: Pen, who: Identity) -> None:
    """Draw the part of a head scarf that lies on the shoulders; origin is the canvas."""
    pen.shape(
        mix(who.accent, who.clothes_shade, 0.2),
        (32, 82),
        (96, 82),
        (98, 100, 112, 108, 116, 134),
        (12, 134),
        (16, 108, 30, 100, 32, 82),
    )
    pen.shape(
        who.accent,
        (36, 88),
        (40, 112, 80, 112, 95, 88),
        (102, 110, 96, 122, 80, 134),
        (40, 134),
        (30, 122, 26, 108, 36, 88),
    )
