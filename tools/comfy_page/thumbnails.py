"""Pictures of the workflows for ComfyUI's template browser: of what they make, or of how they share the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from livetalk_core.loading import load_vae
from livetalk_core.media import load_picture, read_video
from livetalk_core.parallel.plan import choose_grid
from livetalk_core.production.request import BUNDLED_PORTRAIT

from . import ROOT

SIDE = 400
_CELLS = 8 * 9  # divides by the grids of 1, 2, 4 and 8 GPUs
_VAE = ROOT / "livetalk_core" / "assets" / "tiny" / "vae"
Pixels = NDArray[np.uint8]


def of_video(video: Path) -> Image.Image:
    """Four moments of a video."""
    return _sheet(_spread(list(read_video(video)), 4))


def of_pair(videos: Sequence[Path], captions: Sequence[str]) -> Image.Image:
    """The same two moments of two videos, one video a column."""
    columns = [_spread(list(read_video(video)), 2) for video in videos]
    sheet = _sheet([column[row] for row in range(2) for column in columns])
    for index, caption in enumerate(captions):
        _caption(sheet, caption, index * SIDE // 2, SIDE // 2)
    return sheet


def of_gpus(gpus: int) -> Image.Image:
    """The bundled portrait, cut as its decoding is shared by GPUs."""
    sheet = _portrait()
    _cut(sheet, gpus)
    _caption(sheet, f"14B on {gpus} GPU{'s' if gpus > 1 else ''}", 0, SIDE)
    return sheet


def of_decoding(gpus: int) -> Image.Image:
    """Latents of the bundled portrait and, cut as GPUs share it, the picture that they are decoded into."""
    sheet = _portrait()
    _cut(sheet, gpus)
    latents = _latents(sheet.resize((128, 128))).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    sheet.paste(latents.crop((0, 0, SIDE // 2, SIDE)))
    _caption(sheet, "latents", 0, SIDE // 2)
    _caption(sheet, "decoded", SIDE // 2, SIDE // 2)
    return sheet


def _portrait() -> Image.Image:
    return load_picture(BUNDLED_PORTRAIT).resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _latents(picture: Image.Image) -> Image.Image:
    """The three strongest components of the embedded model's latents as red, green and blue."""
    vae, _ = load_vae(next(_VAE.glob("*.safetensors")), "cpu", "fp32")
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    with torch.no_grad():
        latents = vae.encode(pixels)[0, :, 0]
    channels, rows, columns = latents.shape
    flat = latents.reshape(channels, -1).T
    flat = flat - flat.mean(dim=0)
    strongest = flat @ torch.linalg.svd(flat, full_matrices=False).Vh[:3].T
    scaled = (strongest / strongest.std(dim=0) * 55 + 128).clamp(0, 255).to(torch.uint8)
    return Image.fromarray(scaled.reshape(rows, columns, 3).numpy())


def _sheet(frames: Sequence[Pixels]) -> Image.Image:
    """Four frames, row by row, in a square."""
    sheet = Image.new("RGB", (SIDE, SIDE))
    for index, frame in enumerate(frames):
        row, column = divmod(index, 2)
        cell = Image.fromarray(frame).resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS)
        sheet.paste(cell, (column * SIDE // 2, row * SIDE // 2))
    return sheet


def _cut(sheet: Image.Image, gpus: int) -> None:
    grid, draw, scale = choose_grid(gpus, (_CELLS, _CELLS)), ImageDraw.Draw(sheet), SIDE / _CELLS
    for rank in range(grid.tiles if gpus > 1 else 0):
        tile = grid.tile(rank)
        assert tile is not None
        corners = [scale * edge for edge in (tile.left, tile.top, tile.right, tile.bottom)]
        draw.rectangle(corners, outline="white", width=2)


def _caption(sheet: Image.Image, text: str, left: int, width: int) -> None:
    draw, font = ImageDraw.Draw(sheet, "RGBA"), ImageFont.load_default(24)
    draw.rectangle((left, SIDE - 44, left + width, SIDE), fill=(0, 0, 0, 170))
    draw.text((left + width / 2, SIDE - 22), text, fill="white", font=font, anchor="mm")


def _spread(frames: list[Pixels], count: int) -> list[Pixels]:
    # 0.3: moments of the bundled sentence at which the eyes are open.
    return [frames[round((index + 0.3) * len(frames) / count)] for index in range(count)]
