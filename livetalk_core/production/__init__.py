"""From a sound file and a picture to a finished video file with its report: what command line and nodes call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .demo import Demonstration, make_demo
    from .observer import Observer
    from .prepare import Job
    from .producer import produce
    from .report import ChunkRecord, Report
    from .request import BUNDLED_PORTRAIT, VideoRequest

__all__ = [
    "BUNDLED_PORTRAIT",
    "ChunkRecord",
    "Demonstration",
    "Job",
    "Observer",
    "Report",
    "VideoRequest",
    "make_demo",
    "produce",
]

_HOMES = {
    "BUNDLED_PORTRAIT": "request",
    "ChunkRecord": "report",
    "Demonstration": "demo",
    "Job": "prepare",
    "Observer": "observer",
    "Report": "report",
    "VideoRequest": "request",
    "make_demo": "demo",
    "produce": "producer",
}


def __getattr__(name: str) -> Any:
    # Late, so that naming a request does not import the model libraries.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
