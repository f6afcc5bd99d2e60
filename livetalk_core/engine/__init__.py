"""One rank: load -> open_stream -> step(constants, state, samples) -> (chunk, state); state in, state out."""

from __future__ import annotations

from ..audio import MAX_WHOLE_SECONDS
from .constants import EncodedClip, StreamConstants
from .drive import drive, generate
from .state import StreamIdentity, StreamState
from .step import Chunk, FrameTarget, Progress, step
from .stream import Engine, Stream

__all__ = [
    "MAX_WHOLE_SECONDS",
    "Chunk",
    "EncodedClip",
    "Engine",
    "FrameTarget",
    "Progress",
    "Stream",
    "StreamConstants",
    "StreamIdentity",
    "StreamState",
    "drive",
    "generate",
    "step",
]
