"""From a sound file and a picture to a finished video file with its report: what command line and nodes call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .backend import Backend, Stopped
    from .choose_backend import make_backend
    from .daemon_backend import daemon_config
    from .demo import Demonstration, Exhibits, make_demo
    from .facts import ModelFacts
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

# Late, so that naming a request does not import the model libraries.
__getattr__ = lazy_names(
    __name__,
    {
        "backend": ("Backend", "Stopped"),
        "choose_backend": ("make_backend",),
        "daemon_backend": ("daemon_config",),
        "demo": ("Demonstration", "Exhibits", "make_demo"),
        "facts": ("ModelFacts",),
        "observer": ("Observer",),
        "prepare": ("Job",),
        "producer": ("produce",),
        "report": ("ChunkRecord", "Report"),
        "request": ("BUNDLED_PORTRAIT", "Recording", "VideoRequest"),
    },
)
