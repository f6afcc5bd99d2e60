"""Checks of files that need no model library, so that a mistyped path is reported at once."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from PIL import Image

from ..errors import AudioError, OutputError
from ..media import (
    SoundReader,
    array_sound,
    as_portrait,
    check_output,
    check_writable,
    leftover_recordings,
    load_picture,
    open_sound,
)
from .request import BUNDLED_PORTRAIT, Recording, VideoRequest

logger = logging.getLogger("livetalk")

_MAX_RATE = 768_000


def check_files(request: VideoRequest) -> Image.Image:
    """Check the outputs, the sound and the picture; nothing is written.

    Returns:
        The picture, RGB.

    Raises:
        OutputError, AudioError, ImageError: the first thing found wrong, with its remedy.
    """
    _check_outputs(request)
    # Opened again with the model's sample rate; here only its first block is decoded.
    open_request_sound(request).close()
    if isinstance(request.image, Image.Image):
        return as_portrait(request.image)
    return load_picture(request.image or BUNDLED_PORTRAIT)


def open_request_sound(request: VideoRequest, sample_rate: int = 16_000) -> SoundReader:
    """The request's sound at its beginning, as mono samples at the given rate.

    Raises:
        AudioError: sound that cannot be used, as far as its first block tells.
    """
    given = request.audio
    if not isinstance(given, Recording):
        return open_sound(given, sample_rate, max_seconds=request.max_seconds, stdin=request.stdin)
    if given.samples.ndim != 1 or not 1 <= given.sample_rate <= _MAX_RATE:
        raise AudioError(
            f"{given.name} has the shape {list(given.samples.shape)} at {given.sample_rate} samples per second.",
            f"Give mono samples in one dimension, at 1 to {_MAX_RATE} per second.",
        )
    return array_sound(given.samples, sample_rate, given.sample_rate, request.max_seconds, given.name).start()


def _check_outputs(request: VideoRequest) -> None:
    """Every output can be written, and none of them is an input or another output.

    The state may be that which is resumed: it is replaced by what follows it.
    """
    target = check_output(request.output)
    for recording in leftover_recordings(target.parent):
        try:
            size = recording.stat().st_size / 1e6
        except OSError:  # finished meanwhile
            continue
        logger.warning("%s is left of a run that was killed: %.1f MB that play. Keep or delete it.", recording, size)
    for path in (request.report, request.state):
        if path is not None:
            check_writable(path)
    inputs = {"--audio": request.audio, "--image": request.image, "--resume": request.resume}
    taken: dict[str, str] = {
        os.path.realpath(path): name
        for name, path in inputs.items()
        if isinstance(path, str | Path) and os.fspath(path) != "-"
    }
    outputs = {"--out": request.output, "--report": request.report, "--state": request.state}
    for name, path in outputs.items():
        if path is None:
            continue
        place = os.path.realpath(path)
        if place in taken and (name, taken[place]) != ("--state", "--resume"):
            raise OutputError(
                f"{name} and {taken[place]} are the same file, {path}.", "Give each its own file.", file=str(path)
            )
        taken[place] = name
