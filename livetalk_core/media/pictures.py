"""Pictures in: any file Pillow reads becomes an upright, opaque 8-bit RGB portrait."""

from __future__ import annotations

import io
import math
import os
import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError
from .input_file import check_input_file

MIN_SIDE = 32
"""Smallest picture side in pixels; less holds no face."""

MAX_MEGAPIXELS = 64
"""Largest picture, judged by its header before anything is decoded."""

# Pillow reads these by starting another program, which a picture from a stranger must not do.
_REFUSED_FORMATS = frozenset({"EPS", "WMF"})
_MAX_SIDE = 4096
_MAX_RATIO = 4.0
_WHITE = (255, 255, 255, 255)


def load_picture(path: str | Path) -> Image.Image:
    """Read a picture as RGB.

    It is turned upright by its EXIF tag, transparency becomes white, of an animation the first frame counts.

    Raises:
        ImageError: missing, not an ordinary file, no picture, damaged, smaller than `MIN_SIDE` or larger than
            `MAX_MEGAPIXELS`.
    """
    text = os.fspath(path)
    check_input_file(text, "picture", ImageError, "Give a picture file.")
    return _read(text, text)


def decode_picture(data: bytes) -> Image.Image:
    """Read a picture of any size up to `MAX_MEGAPIXELS` from the bytes of its file; see `load_picture`."""
    return _read(io.BytesIO(data), "that was sent", 1)


def _read(source: str | BinaryIO, text: str, min_side: int = MIN_SIDE) -> Image.Image:
    Image.init()
    formats = [name for name in Image.OPEN if name not in _REFUSED_FORMATS]
    try:
        with warnings.catch_warnings():
            # Our own, lower limit is checked below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(source, formats=formats)
        with opened:
            _check_size(opened.size, text, min_side)
            opened.load()
            return _to_rgb(_upright(opened))
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+(?= pixels)", str(error))
        size = f"has {int(pixels[0]) // 10**6} megapixels" if pixels else "is far too large"
        raise ImageError(f"The picture {text} {size}.", _too_large_hint(), file=text) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"The file {text} is not a picture that can be read.", "Give a PNG, JPEG, WebP or similar file.", file=text
        ) from error
    except ImageError:
        raise
    except Exception as error:
        # Pillow's many decoders meet hostile bytes with exceptions of every kind.
        raise ImageError(
            f"The picture {text} is damaged: {error}.", "Save or download it again.", file=text
        ) from error


def as_portrait(picture: Image.Image, name: str = "the given picture") -> Image.Image:
    """A picture that is in memory already, as `load_picture` would have read it.

    Raises:
        ImageError: smaller than `MIN_SIDE`, larger than `MAX_MEGAPIXELS`, or damaged.
    """
    _check_size(picture.size, name)
    try:
        return _to_rgb(_upright(picture))
    except Exception as error:
        # Pillow reads a picture only now if it was opened lazily.
        raise ImageError(f"{name} is damaged: {error}.", "Give another one.") from error


def cover_and_crop(picture: Image.Image, width: int, height: int) -> NDArray[np.uint8]:
    """Pixels [H,W,3] of a picture scaled until it covers width x height, then cropped around its centre.

    Bilinear with the rounding of the published code.

    Raises:
        ImageError: one side of the picture is more than 100 times the other; nothing of it would be left.
    """
    w0, h0 = picture.size
    if max(w0, h0) > 100 * min(w0, h0):
        raise ImageError(f"The picture is {w0}x{h0}.", "Use one whose sides are less unequal.", size=[w0, h0])
    covering, (left, top) = _cover((w0, h0), width, height)
    resized = np.asarray(picture.convert("RGB").resize(covering, Image.Resampling.BILINEAR))
    return np.array(resized[top : top + height, left : left + width])


def cropped_box(
    box: tuple[float, float, float, float], size: tuple[int, int], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Where a part of a picture of that size is after `cover_and_crop`; None where nothing of it is left.

    Args:
        box: Left, top, right, bottom as shares of the picture's width and height.
        size: Width and height of the picture.
        width, height: What it was cropped to.
    """
    (w1, h1), (left, top) = _cover(size, width, height)
    across = [min(max((share * w1 - left) / width, 0.0), 1.0) for share in box[::2]]
    down = [min(max((share * h1 - top) / height, 0.0), 1.0) for share in box[1::2]]
    return None if across[0] >= across[1] or down[0] >= down[1] else (across[0], down[0], across[1], down[1])


def _cover(size: tuple[int, int], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of a picture scaled until it covers width x height, and left and top of the middle of it."""
    scale = max(height / size[1], width / size[0])
    # Rounding of the quotient can leave a side one pixel short of the target.
    w1, h1 = max(width, math.ceil(scale * size[0])), max(height, math.ceil(scale * size[1]))
    return (w1, h1), (round((w1 - width) / 2.0), round((h1 - height) / 2.0))


def fit_size(picture_size: tuple[int, int], area: int, step: int = 16) -> tuple[int, int]:
    """Video size with the picture's aspect ratio (at most 4:1) at about the given area.

    Args:
        picture_size: (width, height) of the picture.
        area: Wanted pixels per frame: width * height of the model's default size.
        step: Both sides are multiples of it.

    Returns:
        (width, height), each from `step` to 4096; of the neighbouring sizes the one that bends the aspect
        ratio and the area least.
    """
    ratio = min(max(picture_size[0] / picture_size[1], 1 / _MAX_RATIO), _MAX_RATIO)
    exact = (area * ratio) ** 0.5, (area / ratio) ** 0.5

    def choices(side: float) -> set[int]:
        floor = int(side // step) * step
        return {min(max(value, step), _MAX_SIDE // step * step) for value in (floor, floor + step)}

    def cost(size: tuple[int, int]) -> tuple[float, int]:
        bend = abs(np.log(size[0] / size[1] / ratio))
        return float(bend + 0.5 * abs(np.log(size[0] * size[1] / area))), size[0]

    return min(((width, height) for width in choices(exact[0]) for height in choices(exact[1])), key=cost)


def _check_size(size: tuple[int, int], text: str, min_side: int = MIN_SIDE) -> None:
    width, height = size
    if min(size) < min_side:
        raise ImageError(
            f"The picture {text} is {width}x{height} pixels.",
            f"Give one of at least {MIN_SIDE}x{MIN_SIDE}; 512 and more look best.",
            file=text,
        )
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(f"The picture {text} is {width}x{height} pixels.", _too_large_hint(), file=text)


def _too_large_hint() -> str:
    return f"At most {MAX_MEGAPIXELS} megapixels: make it smaller first."


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a broken EXIF block does not make a good picture useless."""
    try:
        return ImageOps.exif_transpose(picture)
    except (OSError, ValueError, SyntaxError, TypeError, KeyError):
        return picture


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I") or picture.mode == "F":
        return _from_deep(picture)
    if "A" in picture.getbands() or "a" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, _WHITE), picture).convert("RGB")
    # A copy, because the file behind `picture` is closed after this.
    return picture.convert("RGB") if picture.mode != "RGB" else picture.copy()


def _from_deep(picture: Image.Image) -> Image.Image:
    """16-bit, 32-bit and floating-point grey to 8 bit; Pillow's own conversion would clip it to white."""
    grey = np.asarray(picture).astype(np.float64)
    if picture.mode == "F":
        scale = 255.0 if grey.max(initial=0.0) <= 1 else 1.0
    else:
        scale = 255.0 / max(65535.0, float(grey.max(initial=0.0)))
    values = np.clip(np.nan_to_num(grey) * scale + 0.5, 0, 255).astype(np.uint8)
    return Image.fromarray(values).convert("RGB")
