"""Pictures of the workflows for ComfyUI's template browser: frames of a real run where there is one, else the graph.

    python -m tools.comfy_page.thumbnails WORKFLOWS name=video.mp4 other=left.mp4,right.mp4
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from livetalk_core.media import read_video

SIDE = 400
_GRAPH_CROP = (0, 20, 1260, 690)


def from_videos(paths: list[Path]) -> Image.Image:
    """Four frames of one video, or two of each of two, in a square."""
    each = 4 // len(paths)
    tiles = [frame for path in paths for frame in _spread(list(read_video(path)), each)]
    cells = [Image.fromarray(tile).resize((SIDE // 2, SIDE // 2), Image.Resampling.LANCZOS) for tile in tiles]
    sheet = Image.new("RGB", (SIDE, SIDE))
    for index, cell in enumerate(cells):
        column, row = divmod(index, 2) if len(paths) == 2 else reversed(divmod(index, 2))
        sheet.paste(cell, (column * SIDE // 2, row * SIDE // 2))
    return sheet


def from_graph(picture: Path) -> Image.Image:
    """The graph itself, fitted into a square."""
    graph = Image.open(picture).convert("RGB").crop(_GRAPH_CROP)
    graph.thumbnail((SIDE * 2, SIDE * 2), Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (graph.width, graph.width), graph.getpixel((5, 5)))
    sheet.paste(graph, (0, (graph.width - graph.height) // 2))
    return sheet


def _spread(frames: list[np.ndarray], count: int) -> list[np.ndarray]:
    return [frames[round((index + 0.5) * len(frames) / count)] for index in range(count)]


def main() -> None:
    """Write NAME.jpg for every workflow."""
    folder = Path(sys.argv[1])
    videos = dict(argument.split("=", 1) for argument in sys.argv[2:])
    for page in sorted(folder.glob("*.json")):
        graph = page.with_suffix(".graph.png")
        if page.stem in videos:
            picture = from_videos([Path(part) for part in videos[page.stem].split(",")])
        elif graph.exists():
            picture = from_graph(graph)
        else:
            continue
        picture.save(page.with_suffix(".jpg"), quality=85)
        print(page.with_suffix(".jpg"))


if __name__ == "__main__":
    main()
