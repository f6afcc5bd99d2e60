"""What every message on a wire is made of: the base struct, bounded field types and errors as values."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from ..errors import ERROR_CODES, LiveTalkError

SCHEMA_VERSION = 3
MAX_TEXT = 20_000
MAX_BLOB = 12 * 2**20
MAX_STATE = 8 * 2**20
_TRACEBACK = "Traceback (most recent call last):"
_LAST_LINES = 3
_MAX_WORDS = 600
_TOKEN = re.compile(r"\b[0-9a-fA-F]{64}\b")

Id = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Small = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Blob = Annotated[bytes, msgspec.Meta(max_length=MAX_BLOB)]
State = Annotated[bytes, msgspec.Meta(max_length=MAX_STATE)]
Scalar = str | int | float | bool | None
Numbers = Annotated[dict[Name, float], msgspec.Meta(max_length=64)]


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, forbid_unknown_fields=True):
    """Base of all messages: an array of its class name and its fields.

    Fields have no names on the wire, so that no key can be unknown or come twice; any change of a message
    raises SCHEMA_VERSION.
    """


class ErrorInfo(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An error as it crosses a process boundary."""

    code: Name
    message: Text
    hint: Text = ""
    details: Annotated[dict[Name, Scalar], msgspec.Meta(max_length=32)] = msgspec.field(default_factory=dict)


def to_info(error: BaseException) -> ErrorInfo:
    """An error as a value, without secrets; other errors than ours get the code "worker_failed"."""
    if isinstance(error, LiveTalkError):
        return ErrorInfo(error.code, redact(error.message), redact(error.hint), _plain(error.details))
    return ErrorInfo("worker_failed", redact(f"{type(error).__name__}: {error}"))


def to_error(info: ErrorInfo) -> LiveTalkError:
    """The error that a value stands for; an unknown code becomes the base class."""
    kind = ERROR_CODES.get(info.code, LiveTalkError)
    return kind(info.message, info.hint, **dict(info.details))


def redact(text: str) -> str:
    """Text without tokens and home folders, cut to what a message may carry."""
    home = os.path.expanduser("~")
    text = text.replace(home, "~") if len(home) > 1 else text
    text = _TOKEN.sub("[redacted]", text)
    return text if len(text) <= MAX_TEXT else "…" + text[-(MAX_TEXT - 1) :]


def last_words(text: str) -> str:
    """What a process wrote last, in a line: of a traceback the error alone, else the end of the text."""
    _, traceback, rest = text.strip().rpartition(_TRACEBACK)
    lines = rest.splitlines()
    said = [line for line in lines if not line.startswith(" ")] if traceback else lines[-_LAST_LINES:]
    return redact(" ".join(line.strip() for line in said).strip()[-_MAX_WORDS:])


def _plain(details: Mapping[str, Any]) -> dict[str, Scalar]:
    """Details as scalars; anything else as its text."""
    plain: dict[str, Scalar] = {}
    for key, value in list(details.items())[:32]:
        if isinstance(value, bool | int | float) or value is None:
            plain[str(key)[:200]] = value
        else:
            plain[str(key)[:200]] = redact(str(value))
    return plain
