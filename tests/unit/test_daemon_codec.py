"""Messages as bytes and back; errors as values; the foundation the daemon stands on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from livetalk_core import errors
from livetalk_core.daemon.codec import HEADER, MAX_BODY, BodyDecoder, FrameBuffer, encode
from livetalk_core.daemon.messages import ChunkReady, Hello, PushAudio, Request, ToClient
from livetalk_core.daemon.wire import SCHEMA_VERSION, last_words, redact, to_error, to_info
from livetalk_core.errors import ERROR_CODES, DeviceError, LiveTalkError, ProtocolError

pytestmark = pytest.mark.unit


def test_message_survives_the_wire_in_single_bytes() -> None:
    messages = [Hello(1, "0.1", "key"), PushAudio(2, 3, 4, b"\x00" * 8, True)]
    data = b"".join(encode(message) for message in messages)
    buffer, decoder = FrameBuffer(), BodyDecoder(Request)
    found = []
    for position in range(len(data)):
        buffer.feed(data[position : position + 1])
        while (frame := buffer.next()) is not None:
            found.append(decoder.decode(frame.body))
    assert found == messages and not buffer.partial


def test_message_longer_than_a_peer_accepts_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="longer"):
        encode(PushAudio(1, 1, 0, bytes(MAX_BODY)))


def test_other_schema_is_named() -> None:
    data = bytearray(encode(Hello(1, "", "")))
    data[4] += 1
    buffer = FrameBuffer()
    buffer.feed(bytes(data))
    with pytest.raises(ProtocolError, match=f"speaks schema {SCHEMA_VERSION + 1}, this program {SCHEMA_VERSION}"):
        buffer.next()


def test_field_that_is_wrong_is_named() -> None:
    import msgspec

    body = msgspec.msgpack.encode(["ChunkReady", 1, 2, 3, 4, 5, 6, 7, "eight", 9])
    with pytest.raises(ProtocolError, match=r"\$\[8\]"):
        BodyDecoder(ToClient).decode(body)


def test_numbers_have_limits() -> None:
    for body in (["PushAudio", 1, 1, -1, b""], ["PushAudio", 2**60, 1, 0, b""], ["NextChunk", 1, 1, 0, [0] * 65]):
        import msgspec

        with pytest.raises(ProtocolError):
            BodyDecoder(Request).decode(msgspec.msgpack.encode(body))


def test_every_error_class_has_its_own_code_and_is_registered() -> None:
    classes = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LiveTalkError)
    }
    assert set(ERROR_CODES.values()) == classes and len(ERROR_CODES) == len(classes)


@pytest.mark.parametrize("kind", list(ERROR_CODES.values()))
def test_errors_cross_the_wire(kind: type[LiveTalkError]) -> None:
    back = to_error(to_info(kind("what", "do", rank=1, needed=2.5, file="a", other=[1])))
    assert type(back) is kind and str(back) == "what do"
    assert back.details == {"rank": 1, "needed": 2.5, "file": "a", "other": "[1]"}


def test_error_of_a_newer_program_is_still_an_error() -> None:
    from livetalk_core.daemon.wire import ErrorInfo

    assert type(to_error(ErrorInfo("from_the_future", "x"))) is LiveTalkError


def test_secrets_do_not_cross() -> None:
    home, token = os.path.expanduser("~"), os.urandom(32).hex()
    info = to_info(DeviceError(f"{home}/x {token}", f"{home}/y", file=f"{home}/z", value=token))
    text = repr(info)
    assert token not in text and f"{home}/" not in text and "~/z" in text
    assert token not in repr(to_info(RuntimeError(token)))
    assert len(redact("x" * 100_000)) <= 20_000


def test_of_a_traceback_the_error_alone_is_told() -> None:
    inner = 'Traceback (most recent call last):\n  File "a", line 1, in f\n    g()\nKeyError: 1\n'
    outer = f"x\n{inner}\nDuring handling:\n\n{inner.replace('KeyError: 1', 'ImportError: no torch')}See this.\n"
    assert last_words(outer) == "ImportError: no torch See this."
    assert last_words("one\ntwo\nthree\nfour\n") == "two three four"
    assert last_words("") == "" and len(last_words("x" * 10_000)) < 1000


def test_sizes_of_the_header_are_fixed() -> None:
    assert HEADER.size == 12
    assert len(encode(ChunkReady(1, 1, 0, 0, 0, 0, 28, 448, 768))) < 64


def test_client_is_quick_to_import_and_free_of_heavy_libraries() -> None:
    code = (
        "import time, sys; began = time.process_time(); import livetalk_core.daemon.client as c;"
        "used = time.process_time() - began;"
        "heavy = {'torch', 'numpy', 'scipy', 'av', 'PIL', 'asyncio'} & set(sys.modules);"
        "print(used, ','.join(heavy))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True).split(" ") for _ in range(2)]
    assert all(heavy.strip() == "" for _, heavy in runs), runs
    # Processor time: other programs on the machine do not count.
    assert min(float(used) for used, _ in runs) <= 0.15


def test_client_and_supervisor_need_no_torch() -> None:
    names = ("messages", "connection", "server", "supervisor", "client", "launch", "worker_loop")
    imports = "; ".join(f"import livetalk_core.daemon.{name}" for name in names)
    code = f"{imports}; import sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
