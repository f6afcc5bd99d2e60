"""Messages as bytes: a fixed header, a bounded length, a msgpack body of a known type."""

from __future__ import annotations

import struct
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from ..errors import ProtocolError
from .wire import MAX_BLOB, MAX_STATE, SCHEMA_VERSION

MAGIC = b"LVTK"
HEADER = struct.Struct("<4sBBHI")  # magic, schema, descriptors that come along, zero, body length
MAX_BODY = 2 * MAX_BLOB + MAX_STATE + 2**18  # a stream opened with picture, features and state
MAX_DESCRIPTORS = 2

T = TypeVar("T")
_ENCODER = msgspec.msgpack.Encoder()


class Frame(NamedTuple):
    """One message before decoding."""

    body: bytes
    descriptors: int


def encode_body(message: Any) -> bytes:
    """A message without a header; ProtocolError if it is longer than a peer accepts."""
    body = _ENCODER.encode(message)
    if len(body) > MAX_BODY:
        raise ProtocolError(
            f"A message of {len(body)} bytes is longer than a peer accepts.", f"At most {MAX_BODY} bytes."
        )
    return body


def encode(message: Any, descriptors: int = 0) -> bytes:
    """Header and body of a message with which `descriptors` descriptors travel."""
    body = encode_body(message)
    return HEADER.pack(MAGIC, SCHEMA_VERSION, descriptors, 0, len(body)) + body


class FrameBuffer:
    """Cuts a byte stream into frames; never holds more than one frame and one read.

    Args:
        limit: Longest body accepted.
    """

    def __init__(self, limit: int = MAX_BODY) -> None:
        self.limit = limit
        self._data = bytearray()

    @property
    def partial(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._data)

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._data += data

    def next(self) -> Frame | None:
        """The next complete frame, or None.

        Raises:
            ProtocolError: the header is not ours, or the length is 0 or over the limit.
        """
        if len(self._data) < HEADER.size:
            if not MAGIC.startswith(bytes(self._data[:4])):
                raise ProtocolError("The peer does not speak this protocol.")
            return None
        magic, schema, descriptors, zero, length = HEADER.unpack_from(self._data)
        if magic != MAGIC or zero != 0:
            raise ProtocolError("The peer does not speak this protocol.")
        if schema != SCHEMA_VERSION:
            raise ProtocolError(
                f"The peer speaks schema {schema}, this program {SCHEMA_VERSION}.",
                "Stop the other daemon, or use programs of the same version.",
            )
        if not 0 < length <= self.limit or descriptors > MAX_DESCRIPTORS:
            raise ProtocolError(f"A frame of {length} bytes with {descriptors} descriptors is not accepted.")
        if len(self._data) < HEADER.size + length:
            return None
        body = bytes(memoryview(self._data)[HEADER.size : HEADER.size + length])
        del self._data[: HEADER.size + length]
        return Frame(body, descriptors)


class BodyDecoder(Generic[T]):
    """Bodies -> messages of one union of types.

    Args:
        kind: The union of message classes.
    """

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)

    def decode(self, body: bytes) -> T:
        """One message.

        Raises:
            ProtocolError: any bytes that are not exactly one such message; names the field.
        """
        try:
            return self._decoder.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
            # UnicodeDecodeError quotes the bytes themselves; its first words are enough.
            reason = "text that is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            raise ProtocolError(f"A message cannot be read: {reason[:200]}.") from None
