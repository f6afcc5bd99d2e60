"""Opening sound and video files that strangers may have made: ordinary files, and no lists of other files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av

from ..errors import LiveTalkError
from .input_file import check_input_file

# These "formats" are lists of other files or addresses, which a sound or video file has no business naming.
_PLAYLISTS = frozenset({"hls", "concat", "dash", "sdp", "rtsp", "imf"})
# Titles in another encoding than UTF-8 do not make a file useless; since PyAV 19 that is how it behaves.
_LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


def open_container(path: str | Path, noun: str, error: type[LiveTalkError], pipe_hint: str, hint: str) -> Any:
    """Open a file for reading, after checks that give better words than the decoder's.

    Args:
        path: The file.
        noun: What it should be: "sound file", "video".
        error: Class of the refusal.
        pipe_hint: What to do instead of naming a pipe or device.
        hint: What to do about a file that cannot be read.

    Raises:
        error: not an ordinary file, a playlist, or nothing that PyAV can read.
    """
    text = os.fspath(path)
    check_input_file(text, noun, error, pipe_hint)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(sorted(av.formats_available - _PLAYLISTS)),
    }
    try:
        # An absolute path cannot be taken for an address.
        return av.open(os.path.abspath(text), options=options, **_LENIENT)
    except (av.FFmpegError, OSError, ValueError) as cause:
        raise error(f"{text} is not a {noun} that can be read: {decoder_reason(cause)}.", hint, file=text) from cause


def decoder_reason(error: BaseException) -> str:
    """A decoder's error in a few words."""
    return str(getattr(error, "strerror", None) or str(error) or type(error).__name__)
