"""From a sound file and a picture to a finished video file with its report: what command line and nodes call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import Backend, ModelFacts, Stopped, make_backend
    from .daemon_backend import daemon_config
    from .demo import Demonstration, Exhibits, make_demo
    from .observer import Observer
    from .prepare import Job
    from .producer import produce
    from .report import ChunkRecord, Report
    from .request import BUNDLED_PORTRAIT, Recording, VideoRequest

__all__ = [
    "BUNDLED_PORTRAIT",
    "Backend",
    "ChunkRecord",
    "Demonstration",
    "Exhibits",
    "Job",
    "ModelFacts",
    "Observer",
    "Recording",
    "Report",
    "Stopped",
    "VideoRequest",
    "daemon_config",
    "make_backend",
    "make_demo",
    "produce",
]

_HOMES = {
    "BUNDLED_PORTRAIT": "request",
    "Backend": "backend",
    "ChunkRecord": "report",
    "Demonstration": "demo",
    "Exhibits": "demo",
    "Job": "prepare",
    "ModelFacts": "backend",
    "Observer": "observer",
    "Recording": "request",
    "Report": "report",
    "Stopped": "backend",
    "VideoRequest": "request",
    "daemon_config": "daemon_backend",
    "make_backend": "backend",
    "make_demo": "demo",
    "produce": "producer",
}


def __getattr__(name: str) -> Any:
    # Late, so that naming a request does not import the model libraries.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
