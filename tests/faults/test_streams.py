"""Streams under stress: cancelled, neglected, several at once, asked too late; never a foreign or double frame."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from fakes.daemons import CONFIG, SCALE, SLICE, daemon_config, expected_frames, running, sound, wait_until
from fakes.faults import fail_at

from livetalk_core.config import AudioConfig, ChunkGeometry, StreamConfig
from livetalk_core.daemon.client import Client, RemoteStream
from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.daemon.messages import Progress
from livetalk_core.errors import (
    AudioError,
    ConfigError,
    DeadlineError,
    DeviceError,
    ImageError,
    StateError,
    StreamDroppedError,
)

pytestmark = pytest.mark.faults


def _read(stream: RemoteStream, samples, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        chunk = stream.next_chunk(30)
        assert chunk is not None and chunk.index == number
        assert np.array_equal(chunk.frames, expected_frames(samples, number, stream.number, len(chunk.frames)))


def test_cancel_at_random_steps(tmp_path: Path) -> None:
    steps = 4
    generator = np.random.default_rng(1)
    begun: list[int] = []

    def note(event) -> None:
        if isinstance(event, Progress) and event.phase == "step":
            begun.append(event.step)

    config = daemon_config(tmp_path, options={"step_seconds": "0.03", "steps": str(steps)})
    with running(config, note) as client, client.open_stream(CONFIG, b"picture") as stream:
        heard = sound(0)
        for trial in range(int(12 * SCALE)):
            new = sound(1, seed=trial)
            begun.clear()
            stream.push_audio(new)
            time.sleep(float(generator.uniform(0, 0.12)))
            seen = begun[-1] if begun else 0
            step = stream.cancel()
            assert step == -1 or 0 <= step <= steps
            # Steps are told late, never early: what was seen has begun, and at most one more may begin after it.
            assert step == -1 or step >= seen
            if generator.random() < 0.3:
                assert stream.cancel() == -1, "a second cancel finds nothing to do"
            # What was pushed after the cancel follows the last chunk that was read.
            new = sound(1, seed=1000 + trial)
            stream.push_audio(new)
            heard = np.concatenate([heard, new])
            _read(stream, heard, 1, first=trial)
        stream.push_audio(sound(0), final=True)
        assert stream.next_chunk(30) is None
        assert stream.cancel() == -1, "a cancel after the end is no error"


def test_cancel_takes_effect_by_the_next_step_on_all_ranks(tmp_path: Path) -> None:
    config = daemon_config(tmp_path, options={"step_seconds": "0.3", "steps": "50"})
    with running(config) as client, client.open_stream(CONFIG, b"picture") as stream:
        stream.push_audio(sound(1))
        wait_until(lambda: max(rank.step for rank in client.stats().ranks) >= 2, 10, "under way")
        began = time.monotonic()
        step = stream.cancel()
        assert 2 <= step <= 8 and time.monotonic() - began < 2
        assert {rank.phase for rank in client.stats().ranks} == {"idle"}


def test_undelivered_chunks_are_dropped_and_the_stream_continues_after_the_last_read_one(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client, client.open_stream(CONFIG, b"picture") as stream:
        first = sound(3)
        stream.push_audio(first)
        _read(stream, first, 1)
        wait_until(lambda: client.stats().chunks == 3, 20, "three chunks are made, two are not read")
        stream.cancel()
        second = np.concatenate([first[:SLICE], sound(2, seed=9)])
        stream.push_audio(second[SLICE:], final=True)
        _read(stream, second, 2, first=1)
        assert stream.next_chunk(10) is None


def test_stream_continues_from_the_state_that_came_with_a_chunk(tmp_path: Path) -> None:
    samples = sound(5)
    with running(daemon_config(tmp_path, fail_at("kill", 0, chunk=3, step=1))) as client:
        with client.open_stream(CONFIG, b"picture", want_state=True) as stream:
            stream.push_audio(samples)
            states = [stream.next_chunk(30).state for _ in range(2)]
            assert (stream.chunk, stream.samples) == (0, 0) and all(states)
        with client.open_stream(CONFIG, b"picture", state=states[1]) as stream:
            assert (stream.chunk, stream.samples) == (2, 2 * SLICE)
            stream.push_audio(samples[2 * SLICE : 4 * SLICE])
            _read(stream, samples, 1, first=2)
            stream.cancel()  # a cancel goes back to what was read, not to the beginning
            stream.push_audio(samples[3 * SLICE :], final=True)
            _read(stream, samples, 2, first=3)
            assert stream.next_chunk(5) is None
        with client.open_stream(CONFIG, b"picture", state=states[0]) as stream:
            stream.cancel()
            stream.push_audio(samples[SLICE : 2 * SLICE], final=True)
            chunk = stream.next_chunk(30)
            assert chunk.index == 1 and chunk.state == b""
        with pytest.raises(StateError, match="at most"):
            client.open_stream(CONFIG, b"picture", state=bytes(9 * 2**20))


def test_late_chunk_is_not_lost_and_answers_nobody_else(tmp_path: Path) -> None:
    config = daemon_config(tmp_path, options={"step_seconds": "0.3"})
    with running(config) as client, client.open_stream(CONFIG, b"picture") as stream:
        samples = sound(2)
        stream.push_audio(samples, final=True)
        misses = 0
        chunks = []
        while len(chunks) < 2:
            try:
                chunks.append(stream.next_chunk(0.05))
            except DeadlineError:
                misses += 1
                assert client.stats().streams == 1
        assert misses > 5 and [chunk.index for chunk in chunks] == [0, 1]
        assert stream.next_chunk(5) is None


def test_answer_after_the_deadline_is_discarded(tmp_path: Path) -> None:
    config = daemon_config(tmp_path)
    with running(config) as client:
        with pytest.raises(DeadlineError):
            client.load_model(timeout=0.001)
        stats = [client.stats() for _ in range(20)]
        assert all(each.clients == 1 for each in stats)
        assert client.load_model().name == "fake"


def test_slow_reader_loses_its_stream_and_no_other(tmp_path: Path) -> None:
    config = daemon_config(tmp_path, deadlines=Deadlines(reader=1))
    with running(config) as client:
        slow, quick = client.open_stream(CONFIG, b"one"), client.open_stream(CONFIG, b"two")
        samples = sound(8)
        slow.push_audio(samples)
        quick.push_audio(samples, final=True)
        _read(quick, samples, 8)
        both = client.stats().ring_bytes
        wait_until(lambda: client.stats().ring_bytes <= both / 2, 10, "the neglected ring is freed")
        with pytest.raises(StreamDroppedError, match=r"deadlines\.reader"):
            slow.next_chunk(5)
        slow.close()
        assert quick.next_chunk(5) is None


def test_streams_take_turns_and_never_mix(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client, Client.start_or_join(client.config) as other:
        streams = [client.open_stream(CONFIG, b"one"), other.open_stream(CONFIG, b"two")]
        sounds = [sound(4, seed=n) for n in range(2)]
        for stream, samples in zip(streams, sounds, strict=True):
            stream.push_audio(samples, final=True)
        for number in range(4):
            for stream, samples in zip(streams, sounds, strict=True):
                _read(stream, samples, 1, first=number)
        foreign = streams[0].number
        other_view = RemoteStream.__new__(RemoteStream)
        other_view.__dict__.update(streams[1].__dict__, number=foreign)
        with pytest.raises(StreamDroppedError, match="no stream"):
            other_view.push_audio(sound(1))


def test_all_streams_survive_a_death(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, fail_at("kill", 0, chunk=1, step=3))) as client:
        streams = [client.open_stream(CONFIG, b"one"), client.open_stream(CONFIG, b"two")]
        sounds = [sound(3, seed=n) for n in range(2)]
        for stream, samples in zip(streams, sounds, strict=True):
            stream.push_audio(samples, final=True)
        for stream, samples in zip(streams, sounds, strict=True):
            _read(stream, samples, 3)
            assert stream.next_chunk(5) is None


def test_frames_stay_as_they_were_while_anybody_keeps_them(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path)) as client, client.open_stream(CONFIG, b"picture") as stream:
        samples = sound(10)
        stream.push_audio(samples, final=True)
        kept = list(stream.chunks(timeout=30))
        assert [chunk.index for chunk in kept] == list(range(10))
        for chunk in kept:
            assert np.array_equal(chunk.frames, expected_frames(samples, chunk.index, stream.number))
            assert not chunk.frames.flags.writeable


def test_whole_mode_survives_a_death(tmp_path: Path) -> None:
    config = StreamConfig(width=32, height=16, seed=7, audio=AudioConfig(mode="whole"))
    with running(daemon_config(tmp_path, fail_at("kill", 1, chunk=1, step=0))) as client:
        clip = client.encode_audio(sound(2.5), config)
        assert clip.frames == 70
        with client.open_stream(config, b"picture", clip=clip.clip) as stream:
            assert [(chunk.index, len(chunk.frames)) for chunk in stream.chunks(30)] == [(0, 28), (1, 28), (2, 14)]
        with pytest.raises(ConfigError, match="whole mode needs a clip"):
            client.open_stream(config, b"picture")


def test_stream_too_large_for_shared_memory_says_what_it_needs(tmp_path: Path) -> None:
    huge = StreamConfig(width=4096, height=4096, geometry=ChunkGeometry(frames=129))
    with running(daemon_config(tmp_path, world=1)) as client, client.open_stream(CONFIG, b"picture") as stream:
        with pytest.raises(DeviceError, match="slots") as caught:
            client.open_stream(huge, b"picture")
        assert caught.value.details["needed"] > 4 * 129 * 4096 * 4096 * 3
        samples = sound(1)
        stream.push_audio(samples)
        _read(stream, samples, 1)


def test_latents_are_decoded_piece_by_piece(tmp_path: Path) -> None:
    import fcntl
    import os

    latents = os.memfd_create("latents", os.MFD_ALLOW_SEALING)
    os.ftruncate(latents, 16 * 3 * 2 * 4 * 4)
    fcntl.fcntl(latents, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    with running(daemon_config(tmp_path)) as client:
        with client.decode_latents(latents, (1, 16, 3, 2, 4), frames=4, height=16, width=32) as stream:
            pieces = [(chunk.first_frame, chunk.frames.shape) for chunk in stream.chunks(30)]
        assert pieces == [(0, (1, 16, 32, 3)), (1, (4, 16, 32, 3)), (5, (4, 16, 32, 3))]
    os.close(latents)


def test_sound_that_cannot_be(tmp_path: Path) -> None:
    with running(daemon_config(tmp_path, world=1)) as client, client.open_stream(CONFIG, b"picture") as stream:
        with pytest.raises(AudioError, match="at most"):
            client.encode_audio(np.zeros(4 * 10**6, np.float32), CONFIG)
        with pytest.raises(ImageError, match="at most"):
            client.open_stream(CONFIG, bytes(20 * 2**20))
        for samples in (np.zeros((2, 2), np.float32), np.array([np.nan], np.float32)):
            with pytest.raises(AudioError):
                stream.push_audio(samples)
        stream.push_audio(sound(1), final=True)
        with pytest.raises(AudioError, match="after its end"):
            stream.push_audio(sound(1))
        assert stream.next_chunk(30).index == 0 and stream.next_chunk(5) is None


def test_many_chunks_leave_memory_descriptors_and_shared_memory_flat(tmp_path: Path) -> None:
    count = int(150 * SCALE)
    config = daemon_config(tmp_path, world=1, options={"steps": "1", "state_bytes": "100000"})
    with running(config) as client, client.open_stream(CONFIG, b"picture") as stream:
        processes = [psutil.Process(client.welcome.pid)]
        processes += [psutil.Process(rank.pid) for rank in client.stats().ranks]

        def measure() -> list[tuple[int, int]]:
            return [(process.memory_info().rss, process.num_fds()) for process in processes]

        samples = sound(1)
        early: list[tuple[int, int]] = []
        for number in range(count):
            stream.push_audio(samples)
            assert stream.next_chunk(30).index == number
            if number == count // 3:
                early = measure()
        for (rss, fds), (rss_late, fds_late) in zip(early, measure(), strict=True):
            assert fds_late <= fds and rss_late < rss + 8 * 2**20
