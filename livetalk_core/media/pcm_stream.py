"""Raw samples from a pipe as they arrive."""

from __future__ import annotations

import io
import logging
import select
import sys
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np

from ..errors import AudioError
from .resample import Samples

PCM_RATE = 16_000
_BLOCK_BYTES = 32_000
_HINT = "Pipe raw sound: ffmpeg -i talk.mp3 -f s16le -ac 1 -ar 16000 - | livetalk generate --audio - ..."

# First bytes of sound files that people pipe by mistake; as raw samples they would be a burst of noise.
_FILE_MARKS = {b"RIFF": "WAV", b"OggS": "Ogg", b"fLaC": "FLAC", b"ID3\x03": "MP3", b"ID3\x04": "MP3"}

logger = logging.getLogger("livetalk")


def read_pcm(stream: BinaryIO | None = None) -> Iterator[tuple[Samples, int]]:
    """Blocks (float32 [n], 16000) from 16 kHz mono s16le bytes, without waiting for full blocks.

    A terminal or closed input is refused at once, a sound file in place of samples when its first bytes come.

    Args:
        stream: The bytes; standard input if not given.

    Raises:
        AudioError: standard input is a terminal or closed, or carries a sound file instead of raw samples.
    """
    # Unbuffered: the interpreter cannot end while a thread waits inside standard input's buffered reader. A stream that
    # was given keeps its reader, which may have read ahead.
    buffered = getattr(sys.stdin, "buffer", None)
    source = stream if stream is not None else getattr(buffered, "raw", buffered)
    if source is None:
        raise AudioError("Standard input is closed, so no sound can be read from '-'.", _HINT)
    if source.isatty():
        raise AudioError("Standard input is a terminal, so no sound comes from '-'.", _HINT)
    return _blocks(source)


def _blocks(source: BinaryIO) -> Iterator[tuple[Samples, int]]:
    left = b""
    started = False
    while data := _read_some(source):
        data = left + data
        # Four bytes tell a file from raw samples.
        if not started and len(data) < 4:
            left = data
            continue
        if not started and (kind := _FILE_MARKS.get(data[:4])):
            raise AudioError(f"Standard input carries a {kind} file, not raw samples.", _HINT)
        started = True
        even = len(data) & ~1
        left = data[even:]
        yield _to_float(data[:even]), PCM_RATE
    if len(left) & 1:
        logger.warning("Standard input ended in the middle of a sample; its last byte is ignored.")
    if len(left) > 1:
        yield _to_float(left[: len(left) & ~1]), PCM_RATE


def _read_some(source: BinaryIO) -> bytes:
    """What is there now (waits for at least one byte); empty at the end."""
    if isinstance(source, io.BytesIO):
        return source.read1(_BLOCK_BYTES)
    if isinstance(source, io.BufferedReader):
        if data := source.read1(_BLOCK_BYTES):
            return data
        # The end, or nothing yet: only what is below tells which.
        source = cast(BinaryIO, source.raw)
    # None: somebody has made the pipe one that does not wait.
    while (data := source.read(_BLOCK_BYTES)) is None:
        select.select([source], [], [])
    return data


def _to_float(data: bytes) -> Samples:
    samples: Samples = np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
    return samples
