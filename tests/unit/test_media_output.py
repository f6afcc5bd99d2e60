"""What becomes of a video file when its program is interrupted, fails, or may not write."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from films import FPS, PER_FRAME, moving

from livetalk_core.errors import OutputError
from livetalk_core.media import (
    VideoWriter,
    check_output,
    probe_video,
    read_video,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_interruption_keeps_a_playable_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 64, 48, FPS) as writer:
        writer.write(moving(28), np.zeros(28 * PER_FRAME, np.float32))
        raise KeyboardInterrupt
    assert len(list(read_video(path))) == 28
    assert probe_video(path).audio_seconds == pytest.approx(1.12, abs=1e-3)
    assert os.listdir(tmp_path) == [path.name]


class _Interrupted(np.ndarray):
    """Frames after the tenth of which Ctrl-C is pressed."""

    def __iter__(self) -> Iterator[np.ndarray]:
        for number, frame in enumerate(np.asarray(self)):
            if number == 10:
                raise KeyboardInterrupt
            yield frame


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_interruption_between_the_frames_of_a_call_keeps_both_tracks_equally_long(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 64, 48, FPS) as writer:
        writer.write(moving(28), np.zeros(28 * PER_FRAME, np.float32))
        writer.write(moving(28).view(_Interrupted), np.zeros(28 * PER_FRAME, np.float32))
    assert len(list(read_video(path))) == 38
    found = probe_video(path)
    assert (found.seconds, found.audio_seconds) == pytest.approx((1.52, 1.52), abs=1e-3)


def test_interruption_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "a.mp4", 64, 48, FPS)
    assert not writer.finish_partial()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced elsewhere")
def test_folder_that_cannot_be_synced_or_is_left_takes_nothing_from_a_finished_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems answer so; no local one can be made to."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with VideoWriter("a.mp4", 64, 48, FPS) as writer:
        writer.write(moving(3))
        monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(list(read_video(tmp_path / "a.mp4"))) == 3
    assert os.listdir(tmp_path / "elsewhere") == []


def test_errors_leave_the_old_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), VideoWriter(path, 64, 48, FPS) as writer:
        writer.write(moving(3))
        raise RuntimeError
    with pytest.raises(OutputError, match="no frame"):
        VideoWriter(path, 64, 48, FPS).close()
    with pytest.raises(OutputError, match="even"):
        VideoWriter(path, 63, 48, FPS)
    with pytest.raises(ValueError, match="expected uint8"), VideoWriter(path, 64, 48, FPS) as writer:
        writer.write(moving(3, 32, 32))
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.mp4"]
    writer.discard()
    with pytest.raises(ValueError, match="closed"):
        writer.write(moving(1))


def test_bad_outputs_are_named_before_work_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    cases = {
        "a.avi": "suffix '.avi'",
        "a": "suffix 'none'",
        "folder.mp4": "is a folder",
        ".": "is a folder",
        "none/a.mp4": "does not exist",
        "file/a.mp4": "not a folder",
        "x" * 300 + ".mp4": "File name too long",
    }
    for name, words in cases.items():
        with pytest.raises(OutputError, match=words) as caught:
            check_output(tmp_path / name)
        assert caught.value.hint
    for name in ("", "a\0.mp4"):
        with pytest.raises(OutputError):
            check_output(name)
    assert check_output(tmp_path / "a.MP4") == (tmp_path / "a.MP4").resolve()
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_as_output_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(OutputError, match="device or pipe"):
        check_output(tmp_path / "a.mp4")


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions as on POSIX systems")
def test_unwritable_folder_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)  # noqa: S103 - not even to its owner
        with nobody(), pytest.raises(OutputError, match="Permission denied") as caught:
            check_output(Path(folder) / "a.mp4")
        assert "permissions" in caught.value.hint and os.listdir(folder) == []


_FULL_DISK = """
import resource, sys, numpy as np
from livetalk_core.errors import OutputError
from livetalk_core.media import VideoWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
frames = np.random.default_rng(0).integers(0, 256, (28, 64, 64, 3), dtype=np.uint8)
try:
    with VideoWriter(sys.argv[1], 64, 64, 25) as writer:
        for _ in range(20):
            writer.write(frames, np.zeros(28 * 640, np.float32))
except OutputError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs file size limits")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_file_system_failure_is_an_output_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    done = subprocess.run([sys.executable, "-c", _FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert str(path) in done.stdout
    assert os.strerror(errno.EFBIG) in done.stdout
    assert os.listdir(tmp_path) == []
