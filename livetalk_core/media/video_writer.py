"""Frames and sound into a video file that appears whole, in sync and with exact duration."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from ..errors import OutputError
from .atomic_file import AtomicFile, check_writable, output_error
from .encoders import Frames, h264_encoder
from .matroska import MatroskaWriter
from .mp4_file import Mp4Writer, rewrite_mp4
from .resample import Samples

logger = logging.getLogger("livetalk")

VIDEO_SUFFIXES: dict[str, type[Mp4Writer] | type[MatroskaWriter]] = {".mp4": Mp4Writer, ".mkv": MatroskaWriter}
"""File suffix -> what writes it: .mp4 is H.264 + AAC for every player, .mkv is lossless FFV1 + float PCM."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FRAMES_HINT = "Give sound of at least one video frame."


def frame_digest(frames: Frames) -> str:
    """SHA-256 (hex) of the RGB bytes of uint8 frames [F, H, W, 3]: equal exactly when the pixels are."""
    return hashlib.sha256(np.ascontiguousarray(frames).data).hexdigest()


def check_output(path: str | os.PathLike[str]) -> Path:
    """Find out before any work starts whether a video can be written to `path`.

    Returns:
        The absolute path.

    Raises:
        OutputError: unknown suffix, a folder, parent missing or unwritable.
        MissingDependencyError: the installed FFmpeg libraries have no H.264 encoder.
    """
    text = os.fspath(path)
    suffix = Path(text).suffix.lower()
    if suffix not in VIDEO_SUFFIXES and not os.path.isdir(text):
        raise OutputError(
            f"The output {text} has the suffix {suffix or 'none'!r}.",
            "Use .mp4 (plays everywhere) or .mkv (lossless).",
            file=text,
        )
    target = check_writable(path)
    if suffix == ".mp4":
        h264_encoder()
    return target


class VideoWriter:
    """Write uint8 frames and mono sound, chunk by chunk, in bounded memory.

    The file gets its name only when it is complete; any error removes what was made. As a context manager
    it closes on success, keeps a playable file on Ctrl-C, and discards on any other exception. A program that
    is killed leaves the recording, NAME.xxxxxxxx.partial.mp4 beside the target, playable up to the last call of
    `write` (see `leftover_recordings`).

    Args:
        path: .mp4 or .mkv (see `VIDEO_SUFFIXES`).
        width, height: Frame size in pixels; even for .mp4.
        fps: Frames per second.
        sample_rate: Samples per second of the sound that will be written.

    Raises:
        OutputError: as `check_output`, odd sizes, and whenever the file system fails.
    """

    def __init__(
        self, path: str | os.PathLike[str], width: int, height: int, fps: int, sample_rate: int = 16_000
    ) -> None:
        check_output(path)
        self.width, self.height, self.fps, self.sample_rate = width, height, fps, sample_rate
        self.frames_written = 0
        self._shown = os.fspath(path)
        self._suffix = Path(self._shown).suffix.lower()
        if self._suffix == ".mp4" and (width % 2 or height % 2):
            raise OutputError(
                f"An .mp4 cannot be {width}x{height}: H.264 needs even sides.", "Use .mkv or an even size."
            )
        self._file = AtomicFile(path, recording=True)
        self._open = True
        self._writer: Mp4Writer | MatroskaWriter | None = None
        with self._guard(keep_on_interrupt=False):
            kind = VIDEO_SUFFIXES[self._suffix]
            self._writer = kind(self._file.temporary, width, height, fps, sample_rate)

    def write(self, frames: Frames, samples: Samples | None = None) -> None:
        """Append frames uint8 [F, H, W, 3] and the sound that goes on from where it ended, float32 [n].

        Sound and frames need not match per call: sound ahead of the picture waits for it, and at the end
        the sound is cut or padded with silence to the picture's length.

        Raises:
            OutputError: the disk is full or gone; nothing is left behind.
            ValueError: a wrong shape or type, or the writer is closed.
        """
        if not self._open or self._writer is None:
            raise ValueError("the video is already closed")
        if frames.dtype != np.uint8 or frames.shape[1:] != (self.height, self.width, 3):
            wanted = f"uint8 [F, {self.height}, {self.width}, 3]"
            raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected {wanted}")
        with self._guard():
            self._writer.write(frames, samples)
            self.frames_written += len(frames)

    def close(self) -> None:
        """Finish: sound exactly as long as the picture, file under its final name.

        Raises:
            OutputError: no frame was written, or the file system fails; nothing is left behind.
        """
        if not self._open:
            return
        if not self.frames_written:
            self.discard()
            raise OutputError(
                f"There is nothing to write to {self._shown}: no frame was made.", _NO_FRAMES_HINT
            )
        assert self._writer is not None
        with self._guard(keep_on_interrupt=False):
            self._writer.close()
            if self._suffix == ".mp4":
                self._commit_rewritten()
            else:
                self._file.commit()
        self._open = False

    def finish_partial(self) -> bool:
        """After an interruption: keep a playable file of what was made.

        Returns:
            False where no frame had been written, so that no file was made.
        """
        if self._open and not self.frames_written:
            self.discard()
            return False
        self.close()
        return True

    @property
    def intact(self) -> bool:
        """Whether there are frames that can still be kept."""
        return self._open and self.frames_written > 0

    def discard(self) -> None:
        """Drop everything; a file that had the final name before is left as it was."""
        if not self._open:
            return
        self._open = False
        if self._writer is not None:
            self._writer.abort()
        self._file.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif issubclass(kind, KeyboardInterrupt):
            self.finish_partial()
        else:
            self.discard()

    @contextmanager
    def _guard(self, keep_on_interrupt: bool = True) -> Iterator[None]:
        """Whatever goes wrong removes the file; an interruption between frames may keep it."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            self.discard()
            raise output_error(self._shown, error) from error
        except KeyboardInterrupt:
            if not keep_on_interrupt:
                self.discard()
            raise
        except BaseException:
            self.discard()
            raise

    def _commit_rewritten(self) -> None:
        """Make an ordinary MP4 of the recording; where there is no room for both, the recording is the result."""
        try:
            with AtomicFile(self._file.path) as result:
                rewrite_mp4(self._file.temporary, result.temporary)
        except (av.FFmpegError, OSError, OutputError) as error:
            if _number(error) not in _NO_ROOM:
                raise
            logger.warning("%s stays fragmented: the disk has no room to rewrite it. It plays as it is.", self._shown)
            self._file.commit()
        else:
            self._file.discard()


def _number(error: BaseException) -> int | None:
    """The operating system's number of a failure."""
    if isinstance(error, OutputError):
        return error.details.get("errno")
    return getattr(error, "errno", None)
