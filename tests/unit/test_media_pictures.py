"""Pictures in, contact sheets out."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livetalk_core.errors import ImageError, OutputError
from livetalk_core.media import ContactSheet, contact_sheet, fit_size, load_picture

pytestmark = pytest.mark.unit


def portrait(width: int = 48, height: int = 64) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 4, y * 3, (x + y) * 2], axis=-1).astype(np.uint8))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "a.gif", "a.jpg"])
def test_common_formats(tmp_path: Path, name: str) -> None:
    portrait().save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    picture = load_picture(tmp_path / name)
    assert (picture.mode, picture.size) == ("RGB", (48, 64))
    difference = np.abs(np.asarray(picture).astype(int) - np.asarray(portrait()))
    assert difference.mean() < (10 if name in ("a.jpg", "a.gif") else 1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_upright(tmp_path: Path, orientation: int) -> None:
    turns = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turn = turns[orientation]
    stored = portrait() if turn is None else portrait().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(load_picture(tmp_path / "a.png")), np.asarray(portrait()))


def test_transparency_becomes_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (40, 40), (200, 0, 0, 128))
    half.paste((0, 0, 0, 0), (0, 0, 20, 40))
    half.save(tmp_path / "a.png")
    pixels = np.asarray(load_picture(tmp_path / "a.png"))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    assert np.abs(pixels[0, 30].astype(int) - (227, 127, 127)).max() <= 1
    grey = Image.merge("LA", (Image.new("L", (40, 40), 10), Image.new("L", (40, 40), 0)))
    grey.save(tmp_path / "b.png")
    assert np.asarray(load_picture(tmp_path / "b.png")).min() == 255
    palette = Image.new("P", (40, 40), 3)
    palette.putpalette([0, 0, 0] * 3 + [10, 200, 30])
    palette.save(tmp_path / "c.png")
    assert tuple(np.asarray(load_picture(tmp_path / "c.png"))[5, 5]) == (10, 200, 30)
    palette.save(tmp_path / "d.png", transparency=3)
    assert np.asarray(load_picture(tmp_path / "d.png")).min() == 255


def test_deep_grey_keeps_its_tones(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "b.tiff")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "c.tiff")
    for name in ("a.png", "b.tiff", "c.tiff"):
        pixels = np.asarray(load_picture(tmp_path / name)).astype(float)
        assert np.abs(pixels - ramp[..., None] / 257).max() <= 1


def test_other_colour_models(tmp_path: Path) -> None:
    for number, mode in enumerate(("CMYK", "L", "1", "YCbCr", "LAB")):
        suffix = "jpg" if mode in ("CMYK", "YCbCr") else "tiff"
        Image.new(mode, (40, 40)).save(tmp_path / f"{number}.{suffix}")
        assert load_picture(tmp_path / f"{number}.{suffix}").mode == "RGB"
    cmyk = Image.new("CMYK", (40, 40), (0, 255, 255, 0))
    cmyk.save(tmp_path / "red.jpg", quality=95)
    red = np.asarray(load_picture(tmp_path / "red.jpg"))[20, 20]
    assert red[0] > 200
    assert max(red[1:]) < 60


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (40, 40), (255, 0, 0)), Image.new("RGB", (40, 40), (0, 0, 255))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    assert tuple(np.asarray(load_picture(tmp_path / "a.gif"))[5, 5]) == (255, 0, 0)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds one row of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1 + 3 * min(width, 100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (60_000, 60_000), (12_000, 10_000), (65_000, 1000)])
def test_huge_pictures_are_refused_by_their_header(
    tmp_path: Path, width: int, height: int, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "a.png").write_bytes(png_header(width, height))
    with pytest.raises(ImageError, match=r"a\.png") as caught:
        load_picture(tmp_path / "a.png")
    assert "64 megapixels" in caught.value.hint
    assert not recwarn.list


def test_small_damaged_and_foreign_files(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    portrait(400, 400).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    portrait(400, 400).save(tmp_path / "whole.png")
    (tmp_path / "short.png").write_bytes((tmp_path / "whole.png").read_bytes()[:300])
    (tmp_path / "letter.png").write_text("Dear reader, this is no picture.")
    (tmp_path / "empty.png").touch()
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n")
    cases = {
        "one.png": "1x1",
        "half.jpg": "damaged",
        "short.png": "damaged",
        "letter.png": "not a picture",
        "script.eps": "not a picture",
        "empty.png": "empty",
        "none.png": "does not exist",
        ".": "folder",
    }
    for name, words in cases.items():
        with pytest.raises(ImageError, match=words) as caught:
            load_picture(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        assert caught.value.hint


@pytest.mark.parametrize(
    ("picture", "area", "expected"),
    [
        ((512, 512), 128 * 128, (128, 128)),
        ((1536, 896), 768 * 448, (768, 448)),
        ((896, 1536), 768 * 448, (448, 768)),
        ((300, 400), 128 * 128, (112, 144)),
        ((4000, 40), 128 * 128, (256, 64)),
    ],
)
def test_fit_size(picture: tuple[int, int], area: int, expected: tuple[int, int]) -> None:
    assert fit_size(picture, area) == expected


def test_fit_size_never_bends_a_portrait_much() -> None:
    for width in range(200, 800, 37):
        fitted = fit_size((width, 500), 768 * 448)
        assert fitted[0] % 16 == fitted[1] % 16 == 0
        assert abs(np.log(fitted[0] / fitted[1] / (width / 500))) < 0.03
        assert 0.9 < fitted[0] * fitted[1] / (768 * 448) < 1.1


def test_contact_sheet_of_a_stream_is_even_and_bounded(tmp_path: Path) -> None:
    for total in (1, 7, 40, 1000):
        sheet = ContactSheet(rows=2, columns=4)
        for start in range(0, total, 28):
            count = min(28, total - start)
            values = np.arange(start, start + count) % 256
            sheet.add(np.broadcast_to(values[:, None, None, None], (count, 32, 24, 3)).astype(np.uint8))
            assert len(sheet._kept) <= 32
        cells = sheet.frames()
        times = [time for time, _ in cells]
        assert len(cells) == min(total, 8)
        assert (times[0], times[-1]) == (0, (total - 1) / 25)
        gaps = np.diff(times)
        assert len(gaps) == 0 or gaps.max() <= 1.51 * gaps[:-1].min(initial=gaps.max())
        for time, picture in cells:
            assert np.asarray(picture)[5, 5, 0] == round(time * 25) % 256
        path = sheet.save(tmp_path / "sheet.png", title="Made of greys")
        with Image.open(path) as image:
            assert image.format == "PNG"
    assert os.listdir(tmp_path) == ["sheet.png"]


def test_contact_sheet_needs_frames_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        ContactSheet().save(tmp_path / "a.png")
    with pytest.raises(OutputError, match="does not exist"):
        contact_sheet([(0.0, portrait())], tmp_path / "none" / "a.png")
