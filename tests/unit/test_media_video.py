"""Video out and in: bit-exact or playable everywhere, in sync, exact duration."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from films import FPS, PER_FRAME, moving, noise, write

from livetalk_core.errors import LiveTalkError
from livetalk_core.media import (
    VideoWriter,
    frame_digest,
    open_sound,
    probe_video,
    read_video,
)

pytestmark = pytest.mark.unit


def test_mkv_is_lossless_in_picture_and_sound(tmp_path: Path) -> None:
    frames = noise(31)
    samples = np.random.default_rng(1).uniform(-1, 1, 31 * PER_FRAME).astype(np.float32)
    write(tmp_path / "a.mkv", frames, samples)
    back = np.stack(list(read_video(tmp_path / "a.mkv")))
    assert frame_digest(back) == frame_digest(frames)
    with open_sound(tmp_path / "a.mkv") as reader:
        assert np.array_equal(reader.read(10**6), samples)


def test_mp4_keeps_colours_and_states_their_matrix(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 120, 90], [255, 255, 255], [30, 60, 90]], np.uint8)
    frames = np.broadcast_to(colours[:, None, None, :], (6, 48, 64, 3))
    write(tmp_path / "a.mp4", frames, None)
    for frame, colour in zip(read_video(tmp_path / "a.mp4"), colours, strict=True):
        assert np.abs(frame[24, 32].astype(int) - colour).max() <= 3
    with av.open(str(tmp_path / "a.mp4")) as file:
        video = file.streams.video[0].codec_context
        assert (video.name, video.pix_fmt, video.has_b_frames) == ("h264", "yuv420p", 0)
        assert (video.colorspace, video.color_primaries, video.color_trc, video.color_range) == (1, 1, 1, 1)
        sound = file.streams.audio[0].codec_context
        assert (sound.name, sound.sample_rate) == ("aac", 48_000)


def test_mp4_index_comes_first(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", moving(5), None)
    data = (tmp_path / "a.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("seconds", [0.04, 0.2, 1.0, 1.12, 7.32])
def test_durations_are_equal(tmp_path: Path, suffix: str, seconds: float) -> None:
    path = tmp_path / f"a{suffix}"
    count = round(seconds * FPS)
    frames = moving(count, 32, 32)
    samples = np.random.default_rng(2).normal(0, 0.1, count * PER_FRAME).astype(np.float32)
    write(path, frames, samples)
    info = probe_video(path)
    assert info.frames == count
    assert info.fps == FPS
    assert info.seconds == pytest.approx(seconds, abs=1e-3)
    assert info.audio_seconds == pytest.approx(seconds, abs=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("given", [0, 5000, 40_000])
def test_sound_is_cut_or_padded_to_the_picture(tmp_path: Path, suffix: str, given: int) -> None:
    path = tmp_path / f"a{suffix}"
    samples = np.full(given, 0.25, np.float32)
    write(path, moving(30), samples)
    with VideoWriter(path, 64, 48, FPS) as writer:
        writer.write(moving(30), samples)
    info = probe_video(path)
    assert info.audio_seconds == pytest.approx(1.2, abs=1e-3)
    with open_sound(path) as reader:
        heard = reader.read(10**6)
    assert abs(len(heard) - 19_200) <= 1
    sounding = min(given, 19_200)
    assert np.abs(heard[200 : max(200, sounding - 200)] - 0.25).max(initial=0) < 0.05
    assert np.abs(heard[sounding + 700 :]).max(initial=0) < 0.01


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_flash_and_click_stay_together(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    frames = np.full((80, 48, 64, 3), 16, np.uint8)
    samples = np.zeros(80 * PER_FRAME, np.float32)
    moments = [3, 30, 55, 78]
    for moment in moments:
        frames[moment] = 240
        samples[moment * PER_FRAME + PER_FRAME // 2] = 1.0
    write(path, frames, samples)
    seen = [number for number, frame in enumerate(read_video(path)) if frame.mean() > 128]
    with open_sound(path) as reader:
        heard = np.abs(reader.read(10**6))
    assert seen == moments
    for moment in moments:
        around = heard[(moment - 2) * PER_FRAME : (moment + 3) * PER_FRAME]
        middle = 2 * PER_FRAME + PER_FRAME // 2
        assert abs(int(np.argmax(around)) - middle) <= 32  # 2 ms
    with av.open(str(path)) as file:
        # Both tracks begin at zero for a player.
        starts = [stream.start_time * stream.time_base for stream in file.streams]
    assert starts == [0, 0]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_equal_input_gives_equal_bytes(tmp_path: Path, suffix: str) -> None:
    samples = np.random.default_rng(3).normal(0, 0.1, 40 * PER_FRAME).astype(np.float32)
    write(tmp_path / f"a{suffix}", moving(40), samples)
    write(tmp_path / f"b{suffix}", moving(40), samples)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_digest_sees_pixels_only() -> None:
    frames = noise(2)
    assert frame_digest(frames) == frame_digest(frames[:, ::-1][:, ::-1])
    changed = frames.copy()
    changed[1, 0, 0, 0] ^= 1
    assert frame_digest(frames) != frame_digest(changed)


def test_memory_does_not_grow_with_frames(tmp_path: Path) -> None:
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    frames = moving(28, 64, 64)
    samples = np.zeros(28 * PER_FRAME, np.float32)
    with VideoWriter(tmp_path / "a.mp4", 64, 64, FPS) as writer:
        for _ in range(6):
            writer.write(frames, samples)
        before = resident()
        for _ in range(12):
            writer.write(frames, samples)
        # The 336 frames take 4 MB as RGB and 2 MB as YUV.
        assert resident() - before < 1_500_000


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mp4", b"not a video" * 50, "not a video"),
        ("empty.mp4", b"", "empty"),
        ("list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n", "not a video"),
        ("list.ffconcat", b"ffconcat version 1.0\nfile 'secret.ts'\n", "not a video"),
    ],
)
def test_what_is_no_video_is_refused_and_names_no_other_file(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    _transport_stream(tmp_path / "secret.ts")
    (tmp_path / name).write_bytes(content)
    for read in (probe_video, lambda path: list(read_video(path))):
        with pytest.raises(LiveTalkError, match=words):
            read(tmp_path / name)


def test_a_video_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LiveTalkError, match="does not exist"):
        probe_video(tmp_path / "none.mp4")


def _transport_stream(path: Path) -> None:
    """What a playlist may well name: a video in the one form that all players read from lists."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for _ in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
