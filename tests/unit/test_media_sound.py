"""Sound in: every format, exact lengths, bounded reading."""

from __future__ import annotations

import io
import os
import struct
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
from sounds import RATE, encode, read_all, tone, write_wav

from livetalk_core.errors import AudioError
from livetalk_core.media import Resampler, array_sound, open_sound, probe_sound
from livetalk_core.media.sound_reader import SoundReader

pytestmark = pytest.mark.unit


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


def test_stream_that_was_given_loses_nothing_that_it_has_read_ahead() -> None:
    end, start = os.pipe()
    with os.fdopen(end, "rb") as source, os.fdopen(start, "wb") as sink:
        sink.write(np.arange(400, dtype="<i2").tobytes())
        sink.close()
        assert source.read(2) == b"\0\0"
        assert np.array_equal(read_all(open_sound("-", stdin=source)) * 32768, np.arange(1, 400))


def test_arrays_and_generators_give_the_same_sound() -> None:
    samples = tone(1.3, 48000)
    whole = read_all(array_sound(samples, RATE, from_rate=48000))
    pieces = read_all(array_sound((samples[i : i + 997] for i in range(0, len(samples), 997)), RATE, from_rate=48000))
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
