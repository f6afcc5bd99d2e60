"""Sound from files, standard input or arrays as a stream of mono float32 blocks in bounded memory."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from ..errors import AudioError
from .pcm_stream import read_pcm
from .resample import Resampler, Samples
from .sound_file import SoundInfo, decode_file, probe_sound

__all__ = ["STDIN", "SoundInfo", "SoundReader", "array_sound", "open_sound", "probe_sound"]

STDIN = "-"
_ARRAY_BLOCK = 16_000


class SoundReader:
    """Mono float32 sound at one rate: iterate over blocks of any length, or `read` exact amounts.

    Args:
        blocks: (samples float32 [n], samples per second) in order, already mono.
        sample_rate: The rate that comes out.
        name: What the sound is called in messages.
        seconds_hint: Expected length if known; the truth is known only at the end.
        max_seconds: Stop after this much; nothing beyond it is decoded.

    Raises:
        AudioError: a limit that is none; while reading, from the source, NaN or infinite samples, or no sound at all.
    """

    def __init__(
        self,
        blocks: Iterator[tuple[Samples, int]],
        sample_rate: int,
        name: str,
        seconds_hint: float | None = None,
        max_seconds: float | None = None,
    ) -> None:
        if max_seconds is not None and not 0 < max_seconds < math.inf:
            raise AudioError(f"The sound is limited to {max_seconds} seconds.", "Give a number above 0.")
        self.sample_rate = sample_rate
        self.name = name
        self.seconds_hint = (
            seconds_hint if max_seconds is None else min(seconds_hint or max_seconds, max_seconds)
        )
        self.samples_read = 0
        self._limit = None if max_seconds is None else max(1, round(max_seconds * sample_rate))
        self._source = blocks
        self._blocks = self._limited(_checked(blocks, name))
        self._kept: Samples = np.zeros(0, np.float32)

    @property
    def seconds_read(self) -> float:
        """Length of the sound handed out so far."""
        return self.samples_read / self.sample_rate

    def start(self) -> SoundReader:
        """Decode the first block now, so that unusable sound is reported before other work begins."""
        if not len(self._kept):
            self._kept = next(self._blocks, self._kept)
        return self

    def __iter__(self) -> Iterator[Samples]:
        return self

    def __next__(self) -> Samples:
        block, self._kept = self._kept, self._kept[:0]
        if not len(block):
            block = next(self._blocks)
        self.samples_read += len(block)
        return block

    def read(self, count: int) -> Samples:
        """Exactly `count` samples, fewer only at the end of the sound, none after it."""
        parts: list[Samples] = []
        missing = count
        while missing > 0:
            block = self._kept if len(self._kept) else next(self._blocks, None)
            if block is None:
                break
            parts.append(block[:missing])
            self._kept = block[missing:]
            missing -= len(parts[-1])
        samples = np.concatenate(parts) if parts else np.zeros(0, np.float32)
        self.samples_read += len(samples)
        return samples

    def close(self) -> None:
        """Let go of the file; further reading gives nothing."""
        for generator in (self._blocks, self._source):
            # A thread that waits in it for a silent pipe cannot be woken; it ends with the process.
            with suppress(ValueError):
                if hasattr(generator, "close"):
                    generator.close()
        self._kept = self._kept[:0]

    def __enter__(self) -> SoundReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _limited(self, source: Iterator[tuple[Samples, int]]) -> Iterator[Samples]:
        given = 0
        for block in self._resampled(source):
            room = len(block) if self._limit is None else self._limit - given
            if len(block):
                given += min(room, len(block))
                yield block[:room]
            if self._limit is not None and given >= self._limit:
                return
        if not given:
            raise AudioError(
                f"{self.name} holds no sound: it ended before the first sample.",
                "Give a longer recording.",
                file=self.name,
            )

    def _resampled(self, source: Iterator[tuple[Samples, int]]) -> Iterator[Samples]:
        resampler: Resampler | None = None
        for block, rate in source:
            # Chained streams (internet radio, joined Ogg files) may change their rate on the way.
            if resampler is not None and resampler.from_rate != rate:
                yield resampler.finish()
                resampler = None
            resampler = resampler or Resampler(rate, self.sample_rate)
            yield resampler.push(block)
        if resampler is not None:
            yield resampler.finish()


def _checked(blocks: Iterator[tuple[Samples, int]], name: str) -> Iterator[tuple[Samples, int]]:
    """Refuse NaN and infinity before a filter spreads them, naming the time of the first one."""
    seconds = 0.0
    for block, rate in blocks:
        good = np.isfinite(block)
        if not good.all():
            first = int(np.argmin(good))
            at = seconds + first / rate
            raise AudioError(
                f"{name} has a sample that is not a number ({block[first]}) at {at:.4f} s.",
                "Export it again from the program that made it, as 16-bit WAV.",
                file=name,
                seconds=at,
            )
        yield block, rate
        seconds += len(block) / rate


def array_sound(
    samples: Samples | Iterable[Samples],
    sample_rate: int = 16_000,
    from_rate: int | None = None,
    max_seconds: float | None = None,
    name: str = "the given samples",
) -> SoundReader:
    """Read sound that is already in memory or made on the fly.

    Args:
        samples: Mono float32 [n] in [-1, 1], or an iterable (generator) of such blocks.
        sample_rate: The rate that comes out.
        from_rate: The rate of `samples`; the same if not given.
        max_seconds: Stop after this much.
        name: What to call it in messages.

    Raises:
        AudioError: from the reader: whole numbers, or several channels.
    """
    rate = from_rate or sample_rate
    hint: float | None = None
    parts: Iterable[Samples]
    if isinstance(samples, np.ndarray):
        hint = len(samples) / rate
        parts = (samples[start : start + _ARRAY_BLOCK] for start in range(0, len(samples), _ARRAY_BLOCK))
    else:
        parts = samples
    blocks = ((_one_channel(part, name), rate) for part in parts)
    return SoundReader(blocks, sample_rate, name, hint, max_seconds)


def _one_channel(part: Samples, name: str) -> Samples:
    values = np.asarray(part)
    if values.ndim != 1 or values.dtype.kind != "f":
        what = f"{name} is an array of {values.dtype} of shape {list(values.shape)}."
        raise AudioError(what, "Give one channel of floats in [-1, 1].", file=name)
    return values.astype(np.float32, copy=False)


def open_sound(
    path: str | Path,
    sample_rate: int = 16_000,
    max_seconds: float | None = None,
    stdin: BinaryIO | None = None,
) -> SoundReader:
    """Open any sound file (or the sound of a video) as mono float32, averaged over its channels.

    A file's first block is decoded at once, so a bad file fails here. Damage later in the file ends the
    sound there with a warning.

    Args:
        path: A file, or "-" for raw 16 kHz mono signed 16-bit little-endian samples from standard input.
        sample_rate: The rate that comes out.
        max_seconds: Stop after this much; the rest of the file is not read.
        stdin: Used instead of the process's standard input for "-".

    Raises:
        AudioError: missing, empty, not a file, no sound in it, damaged, NaN samples, a terminal for "-".
    """
    if os.fspath(path) == STDIN:
        return SoundReader(read_pcm(stdin), sample_rate, "standard input", None, max_seconds)
    blocks = decode_file(path)
    info = probe_sound(path)
    return SoundReader(blocks, sample_rate, os.fspath(path), info.seconds, max_seconds).start()
