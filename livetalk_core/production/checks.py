"""Checks of files that need no model library, so that a mistyped path is reported at once."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from ..errors import OutputError
from ..media import check_output, check_writable, load_picture, open_sound
from .request import BUNDLED_PORTRAIT, VideoRequest


def check_files(request: VideoRequest) -> Image.Image:
    """Check the outputs, the sound and the picture; nothing is written.

    Returns:
        The picture, RGB.

    Raises:
        OutputError, AudioError, ImageError: the first thing found wrong, with its remedy.
    """
    _check_outputs(request)
    # Opened again with the model's sample rate; here only its first block is decoded.
    open_sound(request.audio, max_seconds=request.max_seconds, stdin=request.stdin).close()
    return load_picture(request.image or BUNDLED_PORTRAIT)


def _check_outputs(request: VideoRequest) -> None:
    """Every output can be written, and none of them is an input or another output."""
    check_output(request.output)
    for path in (request.report, request.state):
        if path is not None:
            check_writable(path)
    inputs = {"--audio": Path(request.audio), "--image": request.image}
    taken: dict[str, str] = {
        os.path.realpath(path): name
        for name, path in inputs.items()
        if path is not None and os.fspath(path) != "-"
    }
    outputs = {"--out": request.output, "--report": request.report, "--state": request.state}
    for name, path in outputs.items():
        if path is None:
            continue
        place = os.path.realpath(path)
        if place in taken:
            raise OutputError(
                f"{name} and {taken[place]} are the same file, {path}.", "Give each its own file.", file=str(path)
            )
        taken[place] = name
