"""The live picture: who gets what, in how much memory, and that it plays."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from livetalk_core.media import FragmentWriter
from nodes.live import MAX_READERS, MAX_WAITING_PIECES, LiveStreams, Reader

pytestmark = pytest.mark.unit
CHUNK, SIDE, FPS, RATE = 28, 64, 25, 16_000


def taken(reader: Reader) -> list[bytes | None]:
    pieces: list[bytes | None] = []
    while piece := reader.take():
        pieces.append(piece)
    return [*pieces, piece]


def subscribe(streams: LiveStreams, name: str) -> Reader:
    stream = streams.find(name)
    assert stream is not None
    reader = stream.subscribe(lambda: None)
    assert reader is not None
    return reader


def test_an_early_reader_gets_everything_a_late_one_the_head_and_what_is_new() -> None:
    streams = LiveStreams()
    stream = streams.open()
    early = subscribe(streams, stream.name)
    assert taken(early) == [b""]
    stream.begin(b"head", "video/mp4")
    for piece in (b"1", b"2"):
        stream.put(piece)
    late = subscribe(streams, stream.name)
    stream.put(b"3")
    streams.close(stream)
    assert taken(early) == [b"head", b"1", b"2", b"3", None]
    assert taken(late) == [b"head", b"2", b"3", None]
    assert streams.find(stream.name) is None and streams.status() == 0


def test_names_cannot_be_guessed() -> None:
    names = {LiveStreams().open().name for _ in range(100)}
    assert len(names) == 100 and all(len(bytes.fromhex(name)) == 16 for name in names)


def test_a_slow_reader_is_dropped_and_the_others_go_on() -> None:
    streams = LiveStreams()
    stream = streams.open()
    slow, quick = subscribe(streams, stream.name), subscribe(streams, stream.name)
    for index in range(MAX_WAITING_PIECES + 1):
        stream.put(bytes([index + 1]))
        assert quick.take() == bytes([index + 1])
    assert slow.dropped and taken(slow) == [None]
    assert not quick.dropped and stream.readers == 1


def test_readers_are_woken_and_counted() -> None:
    stream = LiveStreams().open()
    woken: list[int] = []
    reader = stream.subscribe(lambda: woken.append(1))
    assert reader is not None
    stream.put(b"x")
    stream.end()
    assert len(woken) == 2
    full = LiveStreams().open()
    assert all(full.subscribe(lambda: None) for _ in range(MAX_READERS))
    assert full.subscribe(lambda: None) is None


def fragments(chunks: int) -> list[bytes]:
    writer = FragmentWriter(SIDE, SIDE, FPS, RATE)
    rng = np.random.default_rng(3)
    pieces = [writer.head]
    for index in range(chunks):
        frames = np.full((CHUNK, SIDE, SIDE, 3), 40 * index, np.uint8)
        pieces.append(writer.write(frames, rng.standard_normal(CHUNK * RATE // FPS).astype(np.float32) * 0.1))
    return [*pieces, writer.finish()]


def video_times(data: bytes) -> list[float]:
    with av.open(io.BytesIO(data)) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def test_fragments_play_from_the_beginning_with_sound_in_step() -> None:
    data = b"".join(fragments(3))
    assert video_times(data) == pytest.approx([index / FPS for index in range(3 * CHUNK)])
    with av.open(io.BytesIO(data)) as container:
        sound = [frame.pts * frame.time_base for frame in container.decode(audio=0)]
    assert sound[0] == 0 and float(sound[-1]) == pytest.approx(3 * CHUNK / FPS, abs=0.05)


def test_fragments_play_from_any_chunk_on() -> None:
    head, *pieces = fragments(4)
    times = video_times(head + b"".join(pieces[2:]))
    assert times == pytest.approx([index / FPS for index in range(2 * CHUNK, 4 * CHUNK)])


def test_the_codec_has_its_name() -> None:
    name = FragmentWriter(SIDE, SIDE, FPS, RATE).content_type
    assert name.startswith('video/mp4; codecs="avc1.64') and name.endswith('mp4a.40.2"')
