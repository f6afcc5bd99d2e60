"""A file that somebody names: there, an ordinary file, not empty, and one that may be read."""

from __future__ import annotations

import os
import stat

from ..errors import LiveTalkError


def check_input_file(text: str, noun: str, error: type[LiveTalkError], pipe_hint: str) -> None:
    """Refuse what cannot be such a file, before any library opens it.

    Args:
        text: The path as it was given.
        noun: What it should be: "picture", "sound file".
        error: Class of the refusal.
        pipe_hint: What to do instead of naming a pipe or device.

    Raises:
        error: absent, a folder, a pipe or device, empty, or not readable.
    """
    try:
        status = os.stat(text)
    except (OSError, ValueError) as cause:
        problem = f"The {noun} {text!r} does not exist or cannot be reached."
        raise error(problem, "Check the path.", file=text) from cause
    if stat.S_ISDIR(status.st_mode):
        raise error(f"{text} is a folder, not a {noun}.", "Name one file in it.", file=text)
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{text} is a pipe or device, not a {noun}.", pipe_hint, file=text)
    if status.st_size == 0:
        raise error(f"The {noun} {text} is empty (0 bytes).", "Save, export or download it again.", file=text)
    if not os.access(text, os.R_OK):
        raise error(f"You may not read the {noun} {text}.", "Change its permissions.", file=text)
