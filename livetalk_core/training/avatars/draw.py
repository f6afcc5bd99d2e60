"""Skia drawing of one avatar frame: backdrop, body, head, eyes and mouth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .hair import EAR_COVERING, HAIRLESS, draw_back_hair, draw_front_hair, draw_scarf_wrap
from .identity import MOUTH_INTERIOR, RGB, Identity, mix
from .mouth_shape import LipGeometry, MouthShape, lip_geometry
from .pen import Pen

if TYPE_CHECKING:
    import skia

CANVAS = 128.0
"""Side of the square canvas in drawing units."""

NECK_PIVOT = 36.0
"""Point below the head centre about which the head rotates."""

_WHITE: RGB = (255, 255, 255)
_INK: RGB = (38, 26, 34)
_TEETH: RGB = (253, 251, 247)
_TONGUE: RGB = (236, 104, 116)
_GOLD: RGB = (252, 206, 84)


def draw_backdrop(pen: Pen, who: Identity) -> None:
    """Fill the canvas with a gradient and at most one big soft shape."""
    light, deep = who.backdrop_light, who.backdrop_deep
    pen.gradient(light, deep, CANVAS)
    middle = mix(light, deep, 0.5)
    if who.backdrop == "disc":
        pen.circle(mix(light, _WHITE, 0.35), 64.0, 60.0, 58.0, alpha=150)
    elif who.backdrop == "hill":
        pen.shape(
            mix(deep, who.clothes_shade, 0.1), (-4, 84), (24, 62, 104, 62, 132, 84), (132, 132), (-4, 132)
        )
    elif who.backdrop == "arch":
        pen.box(mix(middle, _WHITE, 0.3), 10.0, 6.0, 118.0, 160.0, 54.0)


def draw_figure(
    pen: Pen,
    who: Identity,
    mouth: MouthShape,
    pose: tuple[float, float, float],
    blink: float,
    brow: float,
    gaze: tuple[float, float],
) -> None:
    """Draw everything that moves, back to front, over the backdrop."""
    tx, ty, degrees = pose
    x, y = who.center[0] + tx, who.center[1] + ty
    lips = lip_geometry(mouth, who.mouth_width, who.smile)
    with pen.placed(x, y, degrees, NECK_PIVOT):
        draw_back_hair(pen, who)
    with pen.placed(tx * 0.3, ty * 0.25):
        _body(pen, who, tx * 0.35)
    with pen.placed(x, y, degrees, NECK_PIVOT):
        face = _face_path(pen, who, lips.jaw_drop)
        _head(pen, who, face, lips)
        _eyes(pen, who, blink, brow, gaze)
        _nose(pen, who)
        _mouth(pen, who, lips)


def _body(pen: Pen, who: Identity, lean: float) -> None:
    pen.shape(
        who.clothes,
        (0, 134),
        (2, 118, 20, 113, 46, 108),
        (82, 108),
        (108, 113, 126, 118, 128, 134),
    )
    if who.collar == "hood":
        pen.shape(who.clothes_shade, (34, 112), (40, 98, 88, 98, 94, 112), (88, 126, 40, 126, 34, 112))
    with pen.placed(lean, 0.0):
        pen.box(who.skin_shade, 50, 84, 78, 119, 12)
    if who.collar == "crew":
        pen.line(who.accent, 5.0, (46, 108), (48, 121, 80, 121, 82, 108))
    elif who.collar == "vneck":
        pen.shape(who.skin_shade, (50, 106), (64, 126), (78, 106))
        pen.line(who.accent, 4.5, (47, 108), (64, 127), (81, 108))
    elif who.collar == "shirt":
        for side in (-1, 1):
            pen.shape(
                who.accent, (64 + side * 20, 104), (64 + side * 25, 112), (64 + side * 12, 127), (64, 116)
            )
    else:
        pen.line(who.clothes_shade, 7.0, (40, 110), (46, 124, 82, 124, 88, 110))
    if who.hair_style == "scarf":
        draw_scarf_wrap(pen, who)


def _face_path(pen: Pen, who: Identity, jaw_drop: float) -> skia.Path:
    """Build the face outline; only the part below the cheeks follows the jaw."""
    fw, chin = who.face_width, who.face_height + jaw_drop
    cheek = fw * (who.jaw + 0.12)
    lean = (cheek - 0.97 * fw) * 0.9
    handle = fw * (who.jaw - 0.26)
    return pen.path(
        (-fw, -8),
        (-fw, -50, fw, -50, fw, -8),
        (fw, 6, 0.97 * fw, 16, cheek, 26),
        (cheek + lean, 35, handle, chin, 0, chin),
        (-handle, chin, -cheek - lean, 35, -cheek, 26),
        (-0.97 * fw, 16, -fw, 6, -fw, -8),
    )


def _head(pen: Pen, who: Identity, face: skia.Path, lips: LipGeometry) -> None:
    fw = who.face_width
    if who.hair_style not in EAR_COVERING:
        for side in (-1, 1):
            pen.oval(who.skin, side * fw, 2.0, 6.2, 9.0)
            pen.oval(who.skin_shade, side * (fw + 0.6), 2.0, 3.0, 5.2)
            if who.earrings:
                pen.circle(_GOLD, side * (fw + 2.0), 13.5, 3.2)
    pen.fill(face, who.skin)
    with pen.inside(face):
        for side in (-1, 1):
            pen.oval(who.blush, side * 23.0, 13.0, 7.5, 5.0, alpha=150)
        _beard(pen, who, lips)
    draw_front_hair(pen, who)


def _beard_colour(who: Identity) -> RGB:
    """Set the beard apart from the hair: darker when the hair is light, warmer when it is dark."""
    return mix(who.hair, (60, 34, 28), 0.5) if sum(who.hair) > 330 else mix(who.hair, who.skin, 0.3)


def _beard(pen: Pen, who: Identity, lips: LipGeometry) -> None:
    if not who.beard:
        return
    colour, fw, y = _beard_colour(who), who.face_width, who.mouth_y
    upper = y + min(lips.upper, 0.0) * 0.5
    if who.beard == "full":
        pen.shape(
            colour,
            (-fw - 2, 2),
            (-fw + 5, 8, -26, y - 10, 0, y - 8.5),
            (26, y - 10, fw - 5, 8, fw + 2, 2),
            (fw + 2, 60),
            (-fw - 2, 60),
        )
    elif who.beard == "goatee":
        pen.oval(colour, 0.0, y + 20.0 + lips.jaw_drop * 0.6, 15.0, 14.0)
    if who.beard != "full":
        pen.line(colour, 5.0, (-14.0, upper - 4.5), (-8, upper - 8.5, 8, upper - 8.5, 14, upper - 4.5))


def _eyes(pen: Pen, who: Identity, blink: float, brow: float, gaze: tuple[float, float]) -> None:
    for side in (-1, 1):
        with pen.placed(side * who.eye_x, who.eye_y):
            _eye(pen, who, side, blink, gaze)
            level = -who.eye_height - 5.4 - 2.2 * brow
            tilt = who.brow_tilt
            colour = who.brow if who.hair_style not in HAIRLESS else mix(who.brow, _INK, 0.3)
            pen.line(
                colour,
                who.brow_width,
                (-side * 6.5, level + 0.8 + tilt),
                (side * 0.5, level - 3.0, side * 8.0, level + 1.6 - tilt * 0.4),
            )
            if who.glasses:
                pen.frame(who.frame, 2.4, (-11.8, -10.4, 11.8, 11.4), 8.5)
    if who.glasses:
        inner = who.eye_x - 11.8
        pen.line(who.frame, 2.4, (-inner, who.eye_y - 1.5), (0, who.eye_y - 4.0, inner, who.eye_y - 1.5))


def _eye(pen: Pen, who: Identity, side: int, blink: float, gaze: tuple[float, float]) -> None:
    """Draw one eye; the upper lid falls onto the lower one as ``blink`` goes to 1."""
    ew, eh = who.eye_width, who.eye_height
    rest = 0.5 * eh
    upper = -1.33 * eh * (1.0 - blink) + rest * blink
    lower = 1.08 * eh * (1.0 - blink) + rest * blink
    if blink < 0.97:
        opening = pen.path(
            (-ew, 0),
            (-ew * 0.92, upper, ew * 0.92, upper, ew, 0),
            (ew * 0.92, lower, -ew * 0.92, lower, -ew, 0),
        )
        with pen.inside(opening):
            pen.box(_WHITE, -12, -12, 12, 12)
            x, y = gaze[0], gaze[1] - 0.5
            pen.circle(who.iris, x, y, who.iris_radius)
            pen.circle(_INK, x, y, who.iris_radius * 0.58)
            pen.circle(_WHITE, x + 1.7, y - 1.9, 1.7)
    pen.line(_INK, 2.6, (-ew, 0), (-ew * 0.92, upper, ew * 0.92, upper, ew, 0))
    if who.lashes:
        pen.line(_INK, 2.4, (side * ew, 0), (side * (ew + 2.6), -2.6 + 3.4 * blink))


def _nose(pen: Pen, who: Identity) -> None:
    shade = mix(who.skin_shade, (120, 40, 36), 0.12)
    if who.nose == "hook":
        pen.line(shade, 2.6, (0.5, 3.0), (6.0, 11.0, -1.0, 11.6))
    elif who.nose == "button":
        pen.oval(shade, 0.0, 9.5, 4.6, 3.0)
    else:
        pen.line(shade, 2.8, (-3.6, 9.4), (0, 13.0, 3.6, 9.4))


def _mouth(pen: Pen, who: Identity, lips: LipGeometry) -> None:
    hw, corner = lips.half_width, lips.corner
    # A cubic reaches 3/4 of its handles' offset from the end points.
    upper = corner + (lips.upper - corner) / 0.75
    lower = corner + (lips.lower - corner) / 0.75
    above, below = hw * lips.upper_round, hw * lips.lower_round
    with pen.placed(0.0, who.mouth_y):
        _lips(pen, who, lips, upper, lower)
        opening = pen.path(
            (-hw, corner),
            (-above, upper, above, upper, hw, corner),
            (below, lower, -below, lower, -hw, corner),
        )
        if lips.height > 0.0:
            with pen.inside(opening):
                pen.box(MOUTH_INTERIOR, -30, -30, 30, 40)
                pen.oval(_TONGUE, 0.0, lips.lower + 1.0, hw * 0.66, lips.tongue_height + 1.0)
                pen.box(_TEETH, -hw, -30, hw, lips.upper + lips.teeth_height)
        pen.stroke(opening, who.lip_line, 2.0)


def _lips(pen: Pen, who: Identity, lips: LipGeometry, upper: float, lower: float) -> None:
    """Fill the lip area around the opening, with a soft cupid's bow."""
    hw, corner = lips.half_width + 1.6, lips.corner
    above, below = lips.half_width * lips.upper_round, lips.half_width * lips.lower_round
    top, bottom = upper - lips.upper_lip / 0.75, lower + lips.lower_lip / 0.75
    bow = corner + 0.75 * (top - corner)
    pen.shape(
        who.lip,
        (-hw, corner),
        (-above * 0.9, top + 1.0, -4.0, bow - 1.2, 0.0, bow + 0.6),
        (4.0, bow - 1.2, above * 0.9, top + 1.0, hw, corner),
        (below, bottom, -below, bottom, -hw, corner),
    )
