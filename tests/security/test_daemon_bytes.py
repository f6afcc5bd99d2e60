"""Hostile bytes on the daemon's wire cost a bounded read and an error; nothing of them is executed."""

from __future__ import annotations

import os
import pickle
import random
import socket
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes.daemons import SCALE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from livetalk_core.daemon import messages, worker_messages
from livetalk_core.daemon.codec import HEADER, MAGIC, MAX_BODY, BodyDecoder, FrameBuffer, encode
from livetalk_core.daemon.connection import Connection, ConnectionEndedError, Receiver, close_all
from livetalk_core.daemon.wire import SCHEMA_VERSION, Message
from livetalk_core.errors import ProtocolError

pytestmark = pytest.mark.security

FUZZED = int(200 * SCALE)
MUTATED = int(10_000 * SCALE)
UNIONS = (messages.Request, messages.ToClient, worker_messages.Command, worker_messages.Report)
TAGS = [kind.__name__ for union in UNIONS for kind in union.__args__]
DECODERS = [BodyDecoder[Any](union) for union in UNIONS]

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8)
    | st.binary(max_size=16),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
bodies = st.binary(max_size=200) | st.builds(
    lambda tag, rest: msgspec.msgpack.encode([tag, *rest]), st.sampled_from(TAGS), st.lists(values, max_size=12)
)


class _Canary:
    """Pickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mknod, (str(self.path),)


@given(st.binary(max_size=64))
@example(b"")
@example(MAGIC)
@example(HEADER.pack(MAGIC, SCHEMA_VERSION, 0, 0, 0))
@example(HEADER.pack(MAGIC, SCHEMA_VERSION, 0, 0, 2**32 - 1))
@example(HEADER.pack(MAGIC, SCHEMA_VERSION, 255, 0, 1) + b"x")
@example(HEADER.pack(MAGIC, SCHEMA_VERSION, 0, 7, 1) + b"x")
@settings(max_examples=FUZZED, deadline=None)
def test_any_header_is_a_frame_an_error_or_unfinished(data: bytes) -> None:
    buffer = FrameBuffer(1000)
    buffer.feed(data)
    try:
        frame = buffer.next()
    except ProtocolError:
        return
    assert frame is None or 0 < len(frame.body) <= 1000


@given(st.sampled_from(DECODERS), bodies)
@settings(max_examples=FUZZED, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_body_is_a_message_or_a_protocol_error(decoder: BodyDecoder[Any], body: bytes) -> None:
    try:
        message = decoder.decode(body)
    except ProtocolError as error:
        assert len(str(error)) < 300
        return
    # What is accepted is a message of ours, and is accepted again.
    assert isinstance(message, Message)
    again = decoder.decode(msgspec.msgpack.encode(message))
    assert type(again) is type(message)


def test_ten_thousand_damaged_frames() -> None:
    generator = random.Random(11)  # noqa: S311 - reproducible, not secret
    originals = [
        encode(message) for message in (
            messages.Hello(1, "0.1.0", "0" * 16), messages.OpenStream(2, b'{"width": 32}', b"picture", 3),
            messages.PushAudio(3, 1, 0, bytes(64), True), messages.NextChunk(4, 1, 0, [0, 1, 2]),
            messages.DecodeLatents(5, [1, 16, 3, 8, 8], 4, 64, 64), messages.Shutdown(6),
        )
    ]  # fmt: skip
    accepted = 0
    for _ in range(MUTATED):
        data = bytearray(generator.choice(originals))
        for _ in range(generator.randrange(1, 4)):
            place = generator.randrange(len(data))
            kind = generator.randrange(3)
            if kind == 0:
                data[place] = generator.randrange(256)
            elif kind == 1:
                del data[place : place + generator.randrange(1, 8)]
            else:
                data[place:place] = generator.randbytes(generator.randrange(1, 8))
            data = data or bytearray(b"L")
        buffer = FrameBuffer(4096)
        buffer.feed(bytes(data))
        try:
            frame = buffer.next()
            if frame is not None:
                assert isinstance(DECODERS[0].decode(frame.body), Message)
                accepted += 1
        except ProtocolError as error:
            assert len(str(error)) < 300
    assert accepted < MUTATED / 2


@pytest.mark.parametrize("length", [0, MAX_BODY + 1, 2**32 - 1])
def test_length_that_is_not_accepted_is_refused_from_the_header_alone(length: int) -> None:
    buffer = FrameBuffer()
    buffer.feed(HEADER.pack(MAGIC, SCHEMA_VERSION, 0, 0, length))
    with pytest.raises(ProtocolError):
        buffer.next()


@pytest.mark.parametrize(
    "body",
    [
        b"\x91" * 100_000,
        b"\x81\x00" * 100_000,
        msgspec.msgpack.encode({str(n): n for n in range(10**5)}),
        msgspec.msgpack.encode({"type": "Stats", "request": 1}),
        msgspec.msgpack.encode(["Stats", 1, "unknown field"]),
        msgspec.msgpack.encode(["Stats"]),
        msgspec.msgpack.encode(["Stats", float("nan")]),
        msgspec.msgpack.encode(["Stats", True]),
        msgspec.msgpack.encode(["Stats", 1]) + b"\x00",
        b"\x92\xa5Stats",
        b"\x94\xa5Hello\x01\xa2\xff\xfe\xa0",
        msgspec.msgpack.encode(["NextChunk", 1, 1, 0, list(range(10**5))]),
        msgspec.msgpack.encode(["DecodeLatents", 1, [1, 16, -3, 2, 2], 1, 1, 1, False]),
        msgspec.msgpack.encode(["DecodeLatents", 1, [1, 16, 2**40, 2, 2], 1, 1, 1, False]),
        msgspec.msgpack.encode(["DecodeLatents", 1, [1, 16], 1, 1, 1, False]),
    ],
    ids=["arrays", "maps", "million", "map", "unknown", "missing", "nan", "bool", "trailing", "cut", "utf8",
         "many", "negative", "huge", "axes"],
)  # fmt: skip
def test_bombs_and_wrong_fields_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        DECODERS[0].decode(body)


def test_pickles_are_not_messages(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(_Canary(canary), protocol)
        for decoder in DECODERS:
            with pytest.raises(ProtocolError):
                decoder.decode(data)
        buffer = FrameBuffer()
        buffer.feed(data)
        with pytest.raises(ProtocolError):
            buffer.next()
    assert not canary.exists()


def test_error_does_not_quote_what_was_sent() -> None:
    secret = "s" * 64
    with pytest.raises(ProtocolError) as caught:
        DECODERS[0].decode(msgspec.msgpack.encode(["Stats", secret]))
    assert secret not in str(caught.value)


def _pair() -> tuple[socket.socket, Receiver[Any]]:
    left, right = socket.socketpair(socket.AF_UNIX)
    right.setblocking(False)
    return left, Receiver(right, messages.Request, MAX_BODY)


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_descriptors_that_nobody_announced_are_closed() -> None:
    left, receiver = _pair()
    spare = os.open("/dev/null", os.O_RDONLY)
    before = _open_descriptors()
    for _ in range(3):
        socket.send_fds(left, [encode(messages.Stats(1))], [spare, spare])
    with pytest.raises(ProtocolError, match="not announced"):
        for _ in range(3):
            receiver.read()
    receiver.close()
    assert _open_descriptors() == before
    close_all([spare])


def test_more_descriptors_than_a_message_may_carry() -> None:
    left, receiver = _pair()
    spare = os.open("/dev/null", os.O_RDONLY)
    before = _open_descriptors()
    socket.send_fds(left, [encode(messages.Stats(1))], [spare] * 20)
    with pytest.raises(ProtocolError):
        receiver.read()
    receiver.close()
    assert _open_descriptors() == before
    close_all([spare])


def test_announced_descriptor_that_is_missing() -> None:
    left, receiver = _pair()
    left.sendall(encode(messages.Stats(1), descriptors=1))
    with pytest.raises(ProtocolError, match="did not come along"):
        receiver.read()


def test_peer_that_does_not_read_costs_bounded_memory() -> None:
    left, right = socket.socketpair(socket.AF_UNIX)
    connection: Connection[Any] = Connection(right, messages.Request, MAX_BODY)
    with pytest.raises(ConnectionEndedError):
        for _ in range(100):
            connection.send(messages.PushAudio(1, 1, 0, bytes(2**20)))
    connection.close()
    left.close()


def test_frame_in_pieces_between_two_frames_is_put_together() -> None:
    left, receiver = _pair()
    data = encode(messages.Stats(1)) + encode(messages.PushAudio(2, 1, 0, bytes(100))) + encode(messages.Stats(3))
    found = []
    for start in range(0, len(data), 7):
        left.sendall(data[start : start + 7])
        found += [message.request for message, _ in receiver.read()]
    assert found == [1, 2, 3]
    assert struct.calcsize(HEADER.format) == HEADER.size
