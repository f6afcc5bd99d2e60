"""Sound that cannot be read: named, with what is left of it."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import pytest
from cli_tools import write_float_wav
from sounds import RATE, encode, read_all, tone, write_wav

from livetalk_core.errors import AudioError
from livetalk_core.media import array_sound, open_sound

pytestmark = pytest.mark.unit


def test_nan_is_named_with_its_time(tmp_path: Path) -> None:
    samples = tone(1.0, RATE)
    samples[8000] = np.nan
    with pytest.raises(AudioError, match=r"nan.* at 0\.5000 s"):
        read_all(open_sound(write_float_wav(tmp_path / "nan.wav", samples)))
    with pytest.raises(AudioError, match=r"inf"):
        read_all(array_sound(np.array([0.0, np.inf], np.float32)))


@pytest.mark.parametrize("samples", [np.zeros(9, np.int16), np.zeros((9, 2), np.float32)])
def test_arrays_that_are_no_sound_of_one_channel_are_refused(samples: np.ndarray) -> None:
    """As whole numbers they would be far too loud, as two channels twice as long."""
    with pytest.raises(AudioError, match=r"array of (int16 of shape \[9\]|float32 of shape \[9, 2\])"):
        read_all(array_sound(samples))


@pytest.mark.skipif(sys.platform == "win32", reason="pipes always wait there")
@pytest.mark.parametrize("buffering", [0, -1])
def test_pipe_that_does_not_wait_is_waited_for(buffering: int) -> None:
    out, into = os.pipe()
    os.set_blocking(out, False)

    def feed() -> None:
        for _ in range(2):
            time.sleep(0.1)
            os.write(into, bytes(200))
        os.close(into)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open(out, "rb", buffering=buffering) as pipe:
        assert len(read_all(open_sound("-", stdin=pipe))) == 200
    feeder.join()


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
