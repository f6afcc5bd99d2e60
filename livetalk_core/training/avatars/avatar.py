"""Procedural talking avatar: renders identities and clips as uint8 RGB arrays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ...errors import MissingDependencyError, TrainingError
from .draw import CANVAS, draw_backdrop, draw_figure
from .identity import HELD_OUT_SEED, MOUTH_INTERIOR, PORTRAIT_SEED, Identity
from .mouth_shape import MouthShape
from .pen import Pen

__all__ = [
    "HELD_OUT_SEED",
    "MOUTH_INTERIOR",
    "PORTRAIT_SEED",
    "Identity",
    "draw",
    "eye_boxes",
    "jaw_box",
    "mouth_box",
    "reference_frame",
    "render_clip",
]

Frame = npt.NDArray[np.uint8]
Box = tuple[int, int, int, int]
Numbers = Sequence[float] | npt.NDArray[np.floating[Any]]

# Extremes over all identities, mouths and poses (translation 2, 3 and rotation 2 degrees), in canvas units.
_MOUTH_BOX = (40.0, 66.0, 88.0, 109.0)
_JAW_BOX = (26.0, 66.0, 102.0, 116.0)
_EYE_BOXES = ((28.0, 34.0, 63.0, 68.0), (65.0, 34.0, 100.0, 68.0))


def draw(
    identity: Identity,
    mouth: Numbers,
    pose: Numbers = (0.0, 0.0, 0.0),
    blink: float = 0.0,
    brow: float = 0.0,
    gaze: Numbers = (0.0, 0.0),
    size: int = 128,
) -> Frame:
    """Render one frame.

    Args:
        identity: Who is drawn.
        mouth: Mouth parameters [4]: open, width, teeth, tongue.
        pose: Head translation (x, y) in 1/128 of the picture side and rotation in degrees.
        blink: 0 open eyes .. 1 closed eyes.
        brow: Brow raise, -1..1.
        gaze: Iris offset (x, y) in 1/128 of the picture side.
        size: Side of the square picture in pixels.

    Returns:
        RGB picture uint8 [size, size, 3].

    Raises:
        MissingDependencyError: skia-python is not installed.
    """
    skia = _skia()
    pixels = _backdrop(identity, size).copy()
    surface = skia.Surface(pixels, skia.kRGBA_8888_ColorType)
    canvas = surface.getCanvas()
    canvas.scale(size / CANVAS, size / CANVAS)
    tx, ty, degrees = (float(value) for value in pose)
    gaze_x, gaze_y = (float(value) for value in gaze)
    shape = MouthShape.from_row(mouth)
    draw_figure(Pen(canvas), identity, shape, (tx, ty, degrees), float(blink), float(brow), (gaze_x, gaze_y))
    return np.ascontiguousarray(pixels[..., :3])


def render_clip(
    identity: Identity, mouth: npt.NDArray[np.float32], motion: npt.NDArray[np.float32], size: int = 128
) -> Frame:
    """Render mouth track [F,4] and motion track [F,7] (see ``motion_track``) to uint8 [F, size, size, 3]."""
    if len(mouth) != len(motion):
        raise TrainingError(
            f"The mouth track has {len(mouth)} frames but the motion track has {len(motion)}.",
            "Make both tracks from the same sound.",
        )
    frames = np.empty((len(mouth), size, size, 3), np.uint8)
    for index, (shape, move) in enumerate(zip(mouth, motion, strict=True)):
        frames[index] = draw(identity, shape, move[:3], float(move[3]), float(move[4]), move[5:7], size)
    return frames


def reference_frame(identity: Identity, rng: np.random.Generator, size: int = 128) -> Frame:
    """Render the picture a stream starts from: relaxed closed mouth, open eyes, small random pose."""
    pose = rng.uniform(-1.0, 1.0, 3) * (1.2, 0.8, 1.2)
    return draw(identity, (0.0, 0.0, 0.0, 0.0), pose, size=size)


def mouth_box(size: int) -> Box:
    """Pixel box (left, top, right, bottom) that holds the lips of all identities in all poses."""
    return _pixels(_MOUTH_BOX, size)


def jaw_box(size: int) -> Box:
    """Pixel box that holds everything a mouth movement changes: the lips, the chin and the beard."""
    return _pixels(_JAW_BOX, size)


def eye_boxes(size: int) -> tuple[Box, Box]:
    """Pixel boxes of the left and right eye with brow, for all identities in all poses."""
    left, right = _EYE_BOXES
    return _pixels(left, size), _pixels(right, size)


def _pixels(box: tuple[float, float, float, float], size: int) -> Box:
    left, top, right, bottom = (round(value * size / CANVAS) for value in box)
    return left, top, right, bottom


@lru_cache(maxsize=4)
def _backdrop(identity: Identity, size: int) -> Frame:
    """Render the static backdrop once per identity: RGBA uint8 [size, size, 4]."""
    skia = _skia()
    pixels = np.zeros((size, size, 4), np.uint8)
    surface = skia.Surface(pixels, skia.kRGBA_8888_ColorType)
    canvas = surface.getCanvas()
    canvas.scale(size / CANVAS, size / CANVAS)
    draw_backdrop(Pen(canvas), identity)
    pixels.flags.writeable = False
    return pixels


def _skia() -> ModuleType:
    try:
        import skia
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "The avatar renderer needs skia-python, which is not installed.",
            "Install it with: pip install 'livetalk[train]'",
        ) from error
    except ImportError as error:
        raise MissingDependencyError(
            f"The avatar renderer needs skia-python, which cannot be loaded: {error}.",
            "Install what it is linked to: apt-get install libegl1 libgl1 libfontconfig1",
        ) from error
    return cast(ModuleType, skia)
