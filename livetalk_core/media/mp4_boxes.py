"""Boxes of fragmented MP4 (ISO/IEC 14496-12, 14496-14 and 14496-15): H.264 and AAC, nothing else."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

VIDEO_TRACK, SOUND_TRACK = 1, 2
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_IN_MOVIE = 3
_BASE_IS_FRAGMENT = 0x020000
_OFFSET_DURATION_SIZE_FLAGS = 0x000701
_KEY_FRAME, _NO_KEY_FRAME = 0x02000000, 0x01010000
_BT709 = 1


@dataclass(frozen=True)
class VideoTrack:
    """An H.264 track.

    Attributes:
        width, height: In pixels.
        timescale: Units of time per second.
        headers: Sequence and picture parameter sets with start codes, as encoders give them.
    """

    width: int
    height: int
    timescale: int
    headers: bytes


@dataclass(frozen=True)
class SoundTrack:
    """A mono AAC track.

    Attributes:
        rate: Samples per second, which is its timescale too.
        config: The AudioSpecificConfig.
        priming: Samples at the beginning that are not to be heard.
        bit_rate: Bits per second.
    """

    rate: int
    config: bytes
    priming: int
    bit_rate: int


@dataclass(frozen=True)
class Sample:
    """One encoded picture or block of sound; `duration` in the track's timescale."""

    data: bytes
    duration: int
    key: bool = True


@dataclass(frozen=True)
class Run:
    """Consecutive samples of one track; `start` is the time of the first one, in the track's timescale."""

    track: int
    start: int
    samples: Sequence[Sample]


def init_segment(video: VideoTrack, sound: SoundTrack) -> bytes:
    """What a player needs before any fragment: file type and an empty movie with both tracks."""
    movie = _box(
        b"moov",
        _full(b"mvhd", 0, 0, struct.pack(">4I", 0, 0, 1000, 0), struct.pack(">IH10x", 0x10000, 0x100), _MATRIX,
              bytes(24), struct.pack(">I", 3)),
        _video_trak(video),
        _sound_trak(sound),
        _box(b"mvex", *(_full(b"trex", 0, 0, struct.pack(">5I", n, 1, 0, 0, 0)) for n in (VIDEO_TRACK, SOUND_TRACK))),
    )  # fmt: skip
    return _box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6mp41") + movie


def fragment(number: int, runs: Sequence[Run]) -> bytes:
    """A movie fragment and its data, `number` from 1 on."""
    # The offsets of the data depend on the size of the boxes before it, which does not depend on the offsets.
    size = len(_moof(number, runs, [0] * len(runs)))
    offsets, position = [], size + 8
    for run in runs:
        offsets.append(position)
        position += sum(len(sample.data) for sample in run.samples)
    data = [sample.data for run in runs for sample in run.samples]
    return _moof(number, runs, offsets) + _box(b"mdat", *data)


def length_prefixed(stream: bytes) -> bytes:
    """NAL units with start codes -> NAL units with their 4-byte lengths, as MP4 holds them."""
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in _units(stream))


def video_codec(headers: bytes) -> str:
    """RFC 6381 name of an H.264 stream, such as avc1.640016."""
    profile, constraints, level = _parameter_sets(headers)[0][0][1:4]
    return f"avc1.{profile:02x}{constraints:02x}{level:02x}"


def _units(stream: bytes) -> list[bytes]:
    # No start code occurs within a unit, whose last byte is never zero.
    return [unit.rstrip(b"\0") for unit in re.split(b"\0\0\1", stream) if unit.rstrip(b"\0")]


def _parameter_sets(headers: bytes) -> tuple[list[bytes], list[bytes]]:
    units = _units(headers)
    return [u for u in units if u[0] & 31 == 7], [u for u in units if u[0] & 31 == 8]


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


def _moof(number: int, runs: Sequence[Run], offsets: Sequence[int]) -> bytes:
    header = _full(b"mfhd", 0, 0, struct.pack(">I", number))
    return _box(b"moof", header, *(_traf(run, offset) for run, offset in zip(runs, offsets, strict=True)))


def _traf(run: Run, offset: int) -> bytes:
    rows = [
        struct.pack(">3I", sample.duration, len(sample.data), _KEY_FRAME if sample.key else _NO_KEY_FRAME)
        for sample in run.samples
    ]
    return _box(
        b"traf",
        _full(b"tfhd", 0, _BASE_IS_FRAGMENT, struct.pack(">I", run.track)),
        _full(b"tfdt", 1, 0, struct.pack(">Q", run.start)),
        _full(b"trun", 0, _OFFSET_DURATION_SIZE_FLAGS, struct.pack(">Ii", len(rows), offset), *rows),
    )


def _video_trak(video: VideoTrack) -> bytes:
    sequence, picture = _parameter_sets(video.headers)
    first = sequence[0]
    config = _box(
        b"avcC",
        bytes([1, first[1], first[2], first[3], 0xFF, 0xE0 | len(sequence)]),
        *(struct.pack(">H", len(unit)) + unit for unit in sequence),
        bytes([len(picture)]),
        *(struct.pack(">H", len(unit)) + unit for unit in picture),
        # Profiles from High on repeat chroma format and depths: 4:2:0, 8 bit.
        bytes([0xFD, 0xF8, 0xF8, 0]) if first[1] >= 100 else b"",
    )
    entry = _box(
        b"avc1",
        struct.pack(">6xH16xHHIIIH", 1, video.width, video.height, 0x480000, 0x480000, 0, 1),
        bytes(32),
        struct.pack(">Hh", 24, -1),
        config,
        _box(b"colr", b"nclx", struct.pack(">HHHB", _BT709, _BT709, _BT709, 0)),
        _box(b"pasp", struct.pack(">II", 1, 1)),
    )
    header = _full(b"vmhd", 0, 1, bytes(8))
    size = (video.width, video.height)
    return _trak(VIDEO_TRACK, size, video.timescale, b"vide", header, entry, b"")


def _sound_trak(sound: SoundTrack) -> bytes:
    decoder = _descriptor(
        4, struct.pack(">BBBHII", 0x40, 0x15, 0, 0, sound.bit_rate, sound.bit_rate), _descriptor(5, sound.config)
    )
    stream = _descriptor(3, struct.pack(">HB", SOUND_TRACK, 0), decoder, _descriptor(6, b"\2"))
    entry = _box(
        b"mp4a",
        struct.pack(">6xH8xHHIHH", 1, 1, 16, 0, sound.rate, 0),
        _full(b"esds", 0, 0, stream),
    )
    header = _full(b"smhd", 0, 0, bytes(4))
    skip = _box(b"edts", _full(b"elst", 0, 0, struct.pack(">IIiHH", 1, 0, sound.priming, 1, 0)))
    return _trak(SOUND_TRACK, (0, 0), sound.rate, b"soun", header, entry, skip)


def _trak(
    number: int, size: tuple[int, int], timescale: int, handler: bytes, header: bytes, entry: bytes, edit: bytes
) -> bytes:
    volume = 0x100 if handler == b"soun" else 0
    track = _full(
        b"tkhd", 0, _IN_MOVIE, struct.pack(">5I8xHHHH", 0, 0, number, 0, 0, 0, number - 1, volume, 0), _MATRIX,
        struct.pack(">II", size[0] << 16, size[1] << 16),
    )  # fmt: skip
    reference = _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))
    empty = (_full(kind, 0, 0, bytes(4)) for kind in (b"stts", b"stsc", b"stco"))
    table = _box(
        b"stbl",
        _full(b"stsd", 0, 0, struct.pack(">I", 1), entry),
        *empty,
        _full(b"stsz", 0, 0, bytes(8)),
    )
    media = _box(
        b"mdia",
        _full(b"mdhd", 0, 0, struct.pack(">4IHH", 0, 0, timescale, 0, 0x55C4, 0)),
        _full(b"hdlr", 0, 0, bytes(4), handler, bytes(12), handler + b"\0"),
        _box(b"minf", header, _box(b"dinf", reference), table),
    )
    return _box(b"trak", track, edit, media)


def _descriptor(tag: int, *parts: bytes) -> bytes:
    """An MPEG-4 descriptor shorter than 128 bytes."""
    body = b"".join(parts)
    return bytes([tag, len(body)]) + body
