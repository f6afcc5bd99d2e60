"""Fragmented MP4: playable from any fragment on, in sync, and an ordinary file at the end."""

from __future__ import annotations

import errno
import io
import itertools
import logging
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from livetalk_core.daemon.process_group import module_environment
from livetalk_core.media import (
    FragmentWriter,
    VideoWriter,
    leftover_recordings,
    open_sound,
    probe_video,
    read_video,
    video_writer,
)
from livetalk_core.media.mp4_file import Mp4Writer

pytestmark = pytest.mark.unit

FPS, CHUNK, PER_FRAME = 25, 28, 640
HEIGHT, WIDTH = 48, 64
MOMENTS = (3, 30, 55, 78)


def flashes(count: int = 3 * CHUNK) -> tuple[np.ndarray, np.ndarray]:
    """Dark frames with a bright one and a click in its middle at every moment."""
    frames = np.full((count, HEIGHT, WIDTH, 3), 16, np.uint8)
    samples = np.zeros(count * PER_FRAME, np.float32)
    for moment in MOMENTS:
        frames[moment] = 240
        samples[moment * PER_FRAME + PER_FRAME // 2] = 1.0
    return frames, samples


def segments(first_frame: int = 0) -> list[bytes]:
    """Initialisation segment, three fragments and the last one."""
    writer = FragmentWriter(WIDTH, HEIGHT, FPS, first_frame=first_frame)
    made = [writer.head]
    frames, samples = flashes()
    for start in range(0, len(frames), CHUNK):
        stop = start + CHUNK
        made.append(writer.write(frames[start:stop], samples[start * PER_FRAME : stop * PER_FRAME]))
    return [*made, writer.finish()]


def boxes(data: bytes) -> Iterator[tuple[str, bytes]]:
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        assert 8 <= size <= len(data)
        yield kind.decode("ascii"), data[8:size]
        data = data[size:]


def inside(data: bytes, *path: str) -> list[bytes]:
    """Bodies of all boxes at a path."""
    found = [data]
    for kind in path:
        found = [body for part in found for name, body in boxes(part) if name == kind]
    return found


def count_pictures(part: bytes) -> int:
    """Pictures in a fragment."""
    runs = inside(part, "moof", "traf", "trun") if len(inside(part, "moof", "traf")) == 2 else [bytes(8)]
    return int(struct.unpack(">I", runs[0][4:8])[0])


def pictures(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_each_call_gives_one_whole_fragment_at_once() -> None:
    head, *media = segments()
    assert [kind for kind, _ in boxes(head)] == ["ftyp", "moov"]
    assert [count_pictures(part) for part in media] == [28, 28, 28, 0]
    for part in media:
        assert [kind for kind, _ in boxes(part)] == ["moof", "mdat"]


def test_fragments_follow_each_other_in_time() -> None:
    _, *media = segments(first_frame=CHUNK)
    begins = {1: CHUNK * 512, 2: CHUNK * 48_000 // FPS}
    ends = dict(begins)
    for number, part in enumerate(media, 1):
        (header,) = inside(part, "moof", "mfhd")
        assert struct.unpack(">II", header) == (0, number)
        for traf in inside(part, "moof", "traf"):
            track = struct.unpack(">II", *inside(traf, "tfhd"))[1]
            assert struct.unpack(">IQ", *inside(traf, "tfdt"))[1] == ends[track]
            (run,) = inside(traf, "trun")
            rows = list(struct.iter_unpack(">3I", run[12:]))
            ends[track] += sum(duration for duration, _, _ in rows)
            if track == 1:
                # Depends on no other picture; all after it depend on one.
                assert [flags == 0x02000000 for _, _, flags in rows] == [True] + [False] * (CHUNK - 1)
    assert (ends[1] - begins[1]) / (FPS * 512) == 3 * CHUNK / FPS
    # The sound's first block is silence that the edit list skips.
    assert (ends[2] - begins[2] - 1024) / 48_000 == pytest.approx(3 * CHUNK / FPS, abs=1e-3)


def test_a_viewer_may_join_at_any_fragment() -> None:
    head, *media = segments()
    whole = pictures(head + b"".join(media))
    assert len(whole) == 3 * CHUNK
    for first in (1, 2):
        joined = pictures(head + b"".join(media[first:]))
        assert all(np.array_equal(a, b) for a, b in zip(joined, whole[first * CHUNK :], strict=True))


def test_sound_and_picture_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"".join(segments()))
    assert [number for number, frame in enumerate(read_video(path)) if frame.mean() > 128] == list(MOMENTS)
    with open_sound(path) as reader:
        heard = np.abs(reader.read(10**6))
    for moment in MOMENTS:
        around = heard[(moment - 2) * PER_FRAME : (moment + 3) * PER_FRAME]
        assert abs(int(np.argmax(around)) - 2 * PER_FRAME - PER_FRAME // 2) <= 32  # 2 ms
    info = probe_video(path)
    assert (info.frames, info.seconds) == (84, 3.36) and info.audio_seconds == pytest.approx(3.36, abs=1e-3)
    with av.open(str(path)) as file:
        video = file.streams.video[0].codec_context
        assert (video.colorspace, video.color_primaries, video.color_trc, video.color_range) == (1, 1, 1, 1)
        assert [stream.start_time * stream.time_base for stream in file.streams] == [0, 0]


def test_sound_in_a_fragment_ends_shortly_before_its_pictures() -> None:
    given = 0
    for number, part in enumerate(segments()[1:-1], 1):
        _, sound = inside(part, "moof", "traf")
        given += sum(duration for duration, _, _ in struct.iter_unpack(">3I", inside(sound, "trun")[0][12:]))
        assert 0 <= number * CHUNK / FPS - (given - 1024) / 48_000 <= 0.07


def test_content_type_names_the_stream_that_follows() -> None:
    writer = FragmentWriter(WIDTH, HEIGHT, FPS)
    config = writer.head[writer.head.index(b"avcC") + 4 :]
    assert writer.content_type == f'video/mp4; codecs="avc1.{config[1:4].hex()}, mp4a.40.2"'


@pytest.mark.parametrize("given", [0, 5000, 40_000])
def test_sound_is_cut_or_padded(given: int, tmp_path: Path) -> None:
    writer = FragmentWriter(WIDTH, HEIGHT, FPS)
    data = writer.write(flashes()[0][:30], np.full(given, 0.25, np.float32))
    path = tmp_path / "a.mp4"
    path.write_bytes(writer.head + data + writer.finish())
    assert probe_video(path).audio_seconds == pytest.approx(1.2, abs=1e-3)


def test_equal_input_gives_equal_bytes() -> None:
    assert segments() == segments()


class Killed(BaseException):
    """In place of SIGKILL."""


def torn_after(path: Path, torn: int, taken: int) -> None:
    """Record, but end within fragment `torn` when `taken` bytes of its body are written."""
    writer = Mp4Writer(path, WIDTH, HEIGHT, FPS, 16_000)
    frames, samples = flashes()
    write, bodies = writer._write, itertools.count()

    def partial(position: int, data: memoryview) -> None:
        if len(data) > 8 and next(bodies) == torn:
            write(position, data[:taken])
            raise Killed
        write(position, data)

    writer._write = partial  # type: ignore[method-assign]
    with suppress(Killed):
        for start in range(0, 84, CHUNK):
            writer.write(frames[start : start + CHUNK], samples[start * PER_FRAME : (start + CHUNK) * PER_FRAME])
        writer.close()
    writer.abort()


# What follows is about files: `VideoWriter` records fragments and rewrites them at the end.

_KILLED = """
import os, signal, sys
from test_media_fragments import CHUNK, FPS, HEIGHT, PER_FRAME, WIDTH, flashes
from livetalk_core.media import VideoWriter
writer = VideoWriter(sys.argv[1], WIDTH, HEIGHT, FPS)
frames, samples = flashes()
for start in range(0, 84, CHUNK):
    writer.write(frames[start:start + CHUNK], samples[start * PER_FRAME:(start + CHUNK) * PER_FRAME])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and file locks")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_killed_program_leaves_a_recording_that_plays(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    environment = module_environment((str(Path(__file__).parent),))
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path)], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (recording,) = leftover_recordings(tmp_path)
    assert recording.name.startswith("a.") and recording.name.endswith(f".partial{suffix}") and not path.exists()
    seen = [frame.mean() > 128 for frame in read_video(recording)]
    assert len(seen) == 84 if suffix == ".mp4" else len(seen) >= 2 * CHUNK
    assert [number for number, bright in enumerate(seen) if bright] == [m for m in MOMENTS if m < len(seen)]
    with open_sound(recording) as reader:
        heard = np.abs(reader.read(10**6))
    for moment in MOMENTS[:3]:
        middle = moment * PER_FRAME + PER_FRAME // 2
        assert abs(int(np.argmax(heard[middle - 800 : middle + 800])) - 800) <= 32


@pytest.mark.parametrize("torn", [1, 2, 3])
def test_a_recording_torn_anywhere_plays_up_to_its_last_whole_fragment(tmp_path: Path, torn: int) -> None:
    """The program is killed while it writes fragment `torn`: at every write of which the disk took only a part."""
    _, *media = segments()
    whole = sum(count_pictures(part) for part in media[:torn])
    path = tmp_path / "torn.mp4"
    for taken in (0, 1, 7, 8, 100, 800, 1500):
        torn_after(path, torn, taken)
        shown = [frame.mean() > 128 for frame in read_video(path)]
        assert len(shown) == whole
        assert [number for number, bright in enumerate(shown) if bright] == [m for m in MOMENTS if m < whole]


def test_a_recording_in_progress_is_no_leftover(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", WIDTH, HEIGHT, FPS) as writer:
        writer.write(*flashes())
        assert len(list(tmp_path.iterdir())) == 1 and leftover_recordings(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    (tmp_path / "b.0123abcd.partial.mp4").write_bytes(b"x")
    (tmp_path / "c.0123abcd.partial.mp4").touch()
    (tmp_path / "d.partial.mp4").write_bytes(b"x")
    assert leftover_recordings(tmp_path) == [tmp_path / "b.0123abcd.partial.mp4"]
    assert leftover_recordings(tmp_path / "none") == []


@pytest.mark.skipif(os.name != "posix", reason="needs file locks")
def test_recording_that_is_dropped_is_never_taken_for_one_that_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither before its end nor by a program that looks just then; nor does a folder that shows nothing matter."""
    seen: list[object] = []
    unlink = Path.unlink

    def look(path: Path, missing_ok: bool = False) -> None:
        seen.append(leftover_recordings(tmp_path))
        unlink(path, missing_ok=missing_ok)
        seen.append(leftover_recordings(tmp_path))

    writer = VideoWriter(tmp_path / "a.mp4", WIDTH, HEIGHT, FPS)
    writer.write(*flashes())
    monkeypatch.setattr(Path, "unlink", look)
    writer.discard()
    assert seen == [[], []]

    def closed(path: Path) -> Iterator[Path]:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "iterdir", closed)
    assert leftover_recordings(tmp_path) == []


def test_without_room_for_rewriting_the_recording_is_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_paths: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(video_writer, "rewrite_mp4", full)
    path = tmp_path / "a.mp4"
    with caplog.at_level(logging.WARNING, logger="livetalk"), VideoWriter(path, WIDTH, HEIGHT, FPS) as writer:
        writer.write(*flashes())
    assert "stays fragmented" in caplog.text and [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert len(list(read_video(path))) == 84


def test_the_finished_file_is_an_ordinary_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with VideoWriter(path, WIDTH, HEIGHT, FPS) as writer:
        writer.write(*flashes())
    kinds = [kind for kind, _ in boxes(path.read_bytes())]
    assert kinds[:2] == ["ftyp", "moov"] and "moof" not in kinds
    assert not inside(path.read_bytes(), "moov", "mvex")
