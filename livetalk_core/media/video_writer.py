"""Frames and sound into a video file that appears whole, in sync and with exact duration."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError, OutputError
from .atomic_file import AtomicFile, check_writable, output_error
from .resample import Resampler, Samples

Frames = NDArray[np.uint8]

VIDEO_SUFFIXES = {".mp4": "mp4", ".mkv": "matroska"}
"""File suffix -> container: .mp4 is H.264 + AAC for every player, .mkv is lossless FFV1 + float PCM."""

# Every player and editor takes 48 kHz AAC; some refuse the 16 kHz of the model.
_AAC_RATE = 48_000
_H264_ENCODERS = ("libx264", "libopenh264")
_BT709 = 1
_LIMITED_RANGE = 1
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


def h264_encoder() -> str:
    for name in _H264_ENCODERS:
        with suppress(av.codec.codec.UnknownCodecError):
            av.Codec(name, "w")
            return name
    raise MissingDependencyError(
        "The installed PyAV has no H.264 encoder.",
        "Install PyAV from PyPI (pip install av), or write an .mkv instead.",
    )


class VideoWriter:
    """Write uint8 frames and mono sound, chunk by chunk, in bounded memory.

    The file gets its name only when it is complete; any error removes what was made. As a context manager
    it closes on success, keeps a playable file on Ctrl-C, and discards on any other exception.

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
        self._lossless = Path(self._shown).suffix.lower() == ".mkv"
        if not self._lossless and (width % 2 or height % 2):
            raise OutputError(
                f"An .mp4 cannot be {width}x{height}: H.264 needs even sides.", "Use .mkv or an even size."
            )
        self._samples_sent = 0
        self._waiting: Samples = np.zeros(0, np.float32)
        self._resampler = Resampler(sample_rate, sample_rate if self._lossless else _AAC_RATE)
        self._sound_pts = 0
        self._file = AtomicFile(path)
        self._open = True
        with self._guard(keep_on_interrupt=False):
            self._container = self._open_container()
            self._video = self._add_video()
            self._sound = self._add_sound()

    @property
    def seconds_written(self) -> float:
        """Duration of the video so far."""
        return self.frames_written / self.fps

    def write(self, frames: Frames, samples: Samples | None = None) -> None:
        """Append frames uint8 [F, H, W, 3] and the sound that goes on from where it ended, float32 [n].

        Sound and frames need not match per call: sound ahead of the picture waits for it, and at the end
        the sound is cut or padded with silence to the picture's length.

        Raises:
            OutputError: the disk is full or gone; nothing is left behind.
            ValueError: a wrong shape or type, or the writer is closed.
        """
        if not self._open:
            raise ValueError("the video is already closed")
        if frames.dtype != np.uint8 or frames.shape[1:] != (self.height, self.width, 3):
            wanted = f"uint8 [F, {self.height}, {self.width}, 3]"
            raise ValueError(f"frames are {frames.dtype} {frames.shape}, expected {wanted}")
        with self._guard():
            if samples is not None and len(samples):
                self._waiting = np.concatenate([self._waiting, np.asarray(samples, np.float32)])
            for frame in frames:
                self._write_frame(frame)
            self._write_sound(self._due_samples())

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
        with self._guard(keep_on_interrupt=False):
            due = self._due_samples()
            self._waiting = np.pad(self._waiting, (0, max(0, due - len(self._waiting))))
            self._write_sound(due)
            self._encode_sound(self._resampler.finish())
            self._mux(self._video.encode(None))
            self._mux(self._sound.encode(None))
            self._container.close()
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

    def discard(self) -> None:
        """Drop everything; a file that had the final name before is left as it was."""
        if not self._open:
            return
        self._open = False
        container = getattr(self, "_container", None)
        if container is not None:
            # The trailer of a file that is thrown away may well fail on the same full disk.
            with suppress(av.FFmpegError, OSError, ValueError):
                container.close()
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

    def _open_container(self) -> Any:
        # bitexact: no random identifiers and no library versions, so equal input gives equal bytes.
        options = {"fflags": "+bitexact"}
        if not self._lossless:
            options["movflags"] = "+faststart"
        kind = VIDEO_SUFFIXES[Path(self._shown).suffix.lower()]
        return av.open(str(self._file.temporary), "w", format=kind, container_options=options)

    def _add_video(self) -> Any:
        if self._lossless:
            options = {"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}
            stream = self._container.add_stream("ffv1", rate=self.fps, options=options)
            stream.pix_fmt = "bgr0"
        else:
            name = h264_encoder()
            options = (
                {"crf": "18", "preset": "veryfast", "g": str(2 * self.fps)}
                if name == "libx264"
                else {"b": "4M"}
            )
            stream = self._container.add_stream(name, rate=self.fps, options=options)
            stream.pix_fmt = "yuv420p"
            codec = stream.codec_context
            # Without B-frames no frame is reordered, so pictures start at exactly 0.
            codec.max_b_frames = 0
            codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
            codec.color_range = _LIMITED_RANGE
        stream.width, stream.height = self.width, self.height
        codec = stream.codec_context
        codec.time_base = Fraction(1, self.fps)
        # One thread: the same bytes on every machine, and the cores belong to the model.
        codec.thread_count = 1
        codec.flags |= int(av.codec.context.Flags.bitexact)
        return stream

    def _add_sound(self) -> Any:
        name = "pcm_f32le" if self._lossless else "aac"
        stream = self._container.add_stream(name, rate=self._resampler.to_rate, layout="mono")
        if not self._lossless:
            stream.bit_rate = 128_000
        stream.codec_context.flags |= int(av.codec.context.Flags.bitexact)
        return stream

    def _due_samples(self) -> int:
        """Samples that belong to the frames written and have not been sent yet."""
        return round(self.frames_written * self.sample_rate / self.fps) - self._samples_sent

    def _write_frame(self, pixels: Frames) -> None:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        if self._lossless:
            picture = picture.reformat(format="bgr0")
        else:
            picture = picture.reformat(
                format="yuv420p", dst_colorspace=av.video.reformatter.Colorspace.ITU709
            )
        picture.pts = self.frames_written
        picture.time_base = Fraction(1, self.fps)
        self.frames_written += 1
        self._mux(self._video.encode(picture))

    def _write_sound(self, count: int) -> None:
        block, self._waiting = self._waiting[:count], self._waiting[count:]
        self._samples_sent += len(block)
        self._encode_sound(self._resampler.push(block))

    def _encode_sound(self, block: Samples) -> None:
        if not len(block):
            return
        kind = "flt" if self._lossless else "fltp"
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block)[None], format=kind, layout="mono")
        frame.sample_rate = self._resampler.to_rate
        frame.pts = self._sound_pts
        frame.time_base = Fraction(1, self._resampler.to_rate)
        self._sound_pts += len(block)
        self._mux(self._sound.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if packet.stream is self._video and not packet.duration:
                # Without it the last picture of a file would last no time.
                packet.duration = 1
            self._container.mux(packet)
