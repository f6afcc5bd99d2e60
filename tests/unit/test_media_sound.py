"""Sound in: every format, exact lengths, honest errors, bounded reading."""

from __future__ import annotations

import io
import logging
import os
import struct
import sys
import threading
import wave
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import pytest

from livetalk_core.errors import AudioError
from livetalk_core.media import Resampler, array_sound, open_sound, probe_sound
from livetalk_core.media.sound_reader import SoundReader

pytestmark = pytest.mark.unit

RATE = 16_000


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int, width: int = 2) -> Path:
    """samples float [n] or [n, channels]; width in bytes (1 is unsigned, as WAV has it)."""
    flat = np.atleast_2d(samples.T).T
    scaled = np.round(flat * (2 ** (8 * width - 1) - 1)).astype("<i4")
    raw = scaled.view(np.uint8).reshape(*scaled.shape, 4)[..., :width].copy()
    if width == 1:
        raw = (scaled + 128).astype(np.uint8)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(flat.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw.tobytes())
    return path


def write_float_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate, rate * 4, 4, 32)
    head = struct.pack("<4sI4s", b"RIFF", 20 + len(form) + len(data), b"WAVE")
    path.write_bytes(head + form + struct.pack("<4sI", b"data", len(data)) + data)
    return path


def encode(
    path: Path, codec: str, samples: np.ndarray, rate: int, channels: int = 1, picture: bool = False
) -> Path:
    with av.open(str(path), "w") as out:
        layout = {1: "mono", 2: "stereo", 8: "7.1"}[channels]
        stream = out.add_stream(codec, rate=rate, layout=layout)
        if picture:
            video = out.add_stream("mpeg4", rate=25)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            out.mux(video.encode(image) + video.encode(None))
        interleaved = np.repeat(samples, channels)[None]
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def read_all(reader: SoundReader) -> np.ndarray:
    with reader:
        return np.concatenate(list(reader))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_wav_of_any_rate_has_the_exact_length_and_sound(tmp_path: Path, rate: int) -> None:
    count = round(0.7 * rate) + 13
    path = write_wav(tmp_path / "a.wav", tone(1.0, rate)[:count], rate)
    heard = read_all(open_sound(path))
    assert abs(len(heard) - count * RATE / rate) <= 1
    inner = slice(200, -200)
    assert np.abs(heard[inner] - tone(1.0, RATE)[: len(heard)][inner]).max() < 5e-3


@pytest.mark.parametrize(("width", "tolerance"), [(1, 1e-2), (2, 1e-4), (3, 1e-6), (4, 1e-6)])
def test_every_sample_width_scales_to_full_range(tmp_path: Path, width: int, tolerance: float) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.2, RATE), RATE, width)
    assert np.abs(read_all(open_sound(path)) - tone(0.2, RATE)).max() < tolerance


@pytest.mark.parametrize("channels", [1, 2, 3, 8])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    samples = np.stack([tone(0.1, RATE, 200 + 100 * number) for number in range(channels)], axis=1)
    path = write_wav(tmp_path / "a.wav", samples, RATE)
    assert probe_sound(path).channels == channels
    assert np.abs(read_all(open_sound(path)) - samples.mean(axis=1)).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels"),
    [
        ("a.mp3", "libmp3lame", 44100, 2),
        ("a.m4a", "aac", 44100, 2),
        ("a.ogg", "libopus", 48000, 1),
        ("a.opus", "libopus", 48000, 1),
        ("a.webm", "libopus", 48000, 2),
        ("a.flac", "flac", 22050, 8),
        ("b.m4a", "aac", 44100, 8),
        ("a.mka", "pcm_f64le", 16000, 1),
        ("a.mp4", "aac", 48000, 1),
    ],
)
def test_compressed_formats(tmp_path: Path, name: str, codec: str, rate: int, channels: int) -> None:
    path = encode(tmp_path / name, codec, tone(1.0, rate), rate, channels, picture=name == "a.mp4")
    heard = read_all(open_sound(path))
    # MP3 and Opus carry padding that their own headers state only in part; the others are exact.
    assert abs(len(heard) - RATE) <= (1300 if codec in ("libmp3lame", "libopus") else 1)
    expected = tone(1.0, RATE)
    count = min(len(heard), len(expected))
    assert np.corrcoef(heard[500 : count - 500], expected[500 : count - 500])[0, 1] > 0.99


def test_read_gives_exact_amounts_then_the_rest(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.5, 44100), 44100)
    whole = read_all(open_sound(path))
    with open_sound(path) as reader:
        parts = [reader.read(640) for _ in range(14)]
    assert [len(part) for part in parts] == [640] * 12 + [320, 0]
    assert np.array_equal(np.concatenate(parts), whole)
    assert reader.seconds_read == 0.5


def test_max_seconds_reads_only_that_much(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "long.wav", tone(60.0, RATE), RATE)
    with path.open("r+b") as file:
        # Three hours of silence follow, as a hole on the disk; the header says so.
        file.truncate(44 + 3 * 3600 * RATE * 2)
        for offset, value in ((4, 36 + 3 * 3600 * RATE * 2), (40, 3 * 3600 * RATE * 2)):
            file.seek(offset)
            file.write(struct.pack("<I", value))
    assert probe_sound(path).seconds == 3 * 3600
    reader = open_sound(path, max_seconds=10)
    assert reader.seconds_hint == 10
    before = _bytes_read()
    assert len(read_all(reader)) == 10 * RATE
    assert _bytes_read() - before < 2_000_000


def _bytes_read() -> int:
    if not os.path.exists("/proc/self/io"):
        return 0
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


def test_nan_is_named_with_its_time(tmp_path: Path) -> None:
    samples = tone(1.0, RATE)
    samples[8000] = np.nan
    with pytest.raises(AudioError, match=r"nan.* at 0\.5000 s"):
        read_all(open_sound(write_float_wav(tmp_path / "nan.wav", samples)))
    with pytest.raises(AudioError, match=r"inf"):
        read_all(array_sound(np.array([0.0, np.inf], np.float32)))


def test_damage_in_the_middle_keeps_the_beginning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = encode(tmp_path / "a.flac", "flac", tone(3.0, RATE), RATE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.write_bytes(data)
    with caplog.at_level(logging.WARNING, "livetalk"):
        heard = read_all(open_sound(path))
    assert "damaged" in caplog.text
    assert RATE // 2 < len(heard) < 3 * RATE
    assert np.abs(heard - tone(3.0, RATE)[: len(heard)]).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.wav", b"", "empty"),
        ("text.wav", b"this is a letter, not a sound\n" * 40, "not a sound file|damaged|holds no sound"),
        ("noise.mp3", bytes(range(256)) * 20, "not a sound file|damaged|holds no sound"),
        ("half.m4a", b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom\0\0\0\0" + bytes(500), "not a sound file"),
        (
            "list.m3u8",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
            "not a sound file",
        ),
    ],
)
def test_unusable_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(AudioError, match=words) as caught:
        open_sound(path)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_limit_has_to_be_one(tmp_path: Path, limit: float) -> None:
    path = write_wav(tmp_path / "a.wav", tone(0.2, RATE), RATE)
    for read in (lambda: open_sound(path, max_seconds=limit), lambda: array_sound(np.zeros(9), max_seconds=limit)):
        with pytest.raises(AudioError, match="limited to"):
            read()


def test_unusable_paths(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        open_sound(tmp_path / "none.wav")
    with pytest.raises(AudioError, match="folder"):
        open_sound(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(AudioError, match="pipe"):
            open_sound(tmp_path / "pipe")


def test_wav_without_samples_and_picture_without_sound(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no sound"):
        open_sound(write_wav(tmp_path / "a.wav", np.zeros(0), RATE))
    with av.open(str(tmp_path / "b.mp4"), "w") as out:
        video = out.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(video.encode(None))
    with pytest.raises(AudioError, match="no sound"):
        open_sound(tmp_path / "b.mp4")


def test_stdin_streams_as_it_arrives() -> None:
    end, start = os.pipe()
    pcm = (tone(0.1, RATE) * 32767).astype("<i2")
    with os.fdopen(end, "rb") as source, os.fdopen(start, "wb", buffering=0) as sink:
        reader = open_sound("-", stdin=source)
        sink.write(pcm[:400].tobytes())
        # Nothing more has been sent, so this returns only because reading does not wait for a full block.
        assert np.array_equal(reader.read(400), pcm[:400].astype(np.float32) / 32768)
        writer = threading.Thread(target=lambda: (sink.write(pcm[400:].tobytes()), sink.close()))
        writer.start()
        rest = read_all(reader)
        writer.join()
    assert np.array_equal(rest, pcm[400:].astype(np.float32) / 32768)


def test_stdin_drops_an_odd_byte_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "livetalk"):
        assert len(read_all(open_sound("-", stdin=io.BytesIO(b"\x01\x02" * 5 + b"\x07")))) == 5
        assert len(read_all(open_sound("-", stdin=io.BytesIO(b"\x01\x02\x03")))) == 1
    assert caplog.text.count("last byte") == 2


def test_stdin_refuses_files_terminals_and_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match="WAV file"):
        open_sound("-", stdin=io.BytesIO(b"RIFF1234WAVE")).read(1)
    with pytest.raises(AudioError, match="no sound"):
        open_sound("-", stdin=io.BytesIO(b"")).read(1)

    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(AudioError, match="terminal"):
        open_sound("-", stdin=cast(BinaryIO, Terminal())).read(1)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(AudioError, match="closed"):
        open_sound("-").read(1)


def test_arrays_and_generators_give_the_same_sound() -> None:
    samples = tone(1.3, 48000)
    whole = read_all(array_sound(samples, RATE, from_rate=48000))
    pieces = read_all(
        array_sound((samples[i : i + 997] for i in range(0, len(samples), 997)), RATE, from_rate=48000)
    )
    assert len(whole) == round(1.3 * RATE)
    assert np.array_equal(whole, pieces)
    assert len(read_all(array_sound(samples, RATE, from_rate=48000, max_seconds=0.5))) == 8000
    with pytest.raises(AudioError, match="no sound"):
        array_sound(np.zeros(0, np.float32)).read(1)


def test_a_stream_may_change_its_rate() -> None:
    blocks = iter([(tone(0.5, 8000), 8000), (tone(0.5, 44100), 44100)])
    assert len(read_all(SoundReader(blocks, RATE, "radio"))) == RATE


@pytest.mark.parametrize("count", [1, 37, 1152, 50_001])
@pytest.mark.parametrize("rate", [8000, 22050, 48000, 192000])
def test_resampler_length_is_exact_and_nothing_shifts(rate: int, count: int) -> None:
    resampler = Resampler(rate, RATE)
    click = np.zeros(count, np.float32)
    click[count // 2] = 1
    out = np.concatenate([*(resampler.push(part) for part in np.array_split(click, 7)), resampler.finish()])
    assert len(out) == round(count * RATE / rate)
    if count > 1000:
        assert abs(int(np.argmax(np.abs(out))) - count // 2 * RATE / rate) <= 1


def test_a_title_in_another_encoding_does_no_harm(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with wave.open(plain, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    title = b"INFOINAM" + struct.pack("<I", 6) + "cafés".encode("latin-1") + b"\0"
    body = b"WAVELIST" + struct.pack("<I", len(title)) + title + plain.getvalue()[12:]
    path = tmp_path / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    with open_sound(path) as reader:
        assert len(reader.read(10**6)) == 1600
