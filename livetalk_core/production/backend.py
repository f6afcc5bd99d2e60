"""Where chunks come from: one seam before the engine in this process and the ranks behind a daemon."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..loading.hardware import cpu_has_bf16, has_gpu_driver
from .observer import Observer
from .request import VideoRequest

if TYPE_CHECKING:
    from .prepare import Job
    from .sound_track import SoundTrack

_CPU_FORMATS = {"auto": None, "fp32": "fp32", "float32": "fp32", "bf16": "bf16", "bfloat16": "bf16"}


class Stopped(Exception):  # noqa: N818 - somebody's wish, not an error
    """The request's `stop` said so."""


@dataclass(frozen=True)
class ModelFacts:
    """What computes.

    Attributes:
        name, revision: Name and fingerprint of the weights.
        device, dtype: Where transformer and VAE compute, and in which number format.
        world_size, worker_pids: The processes that compute.
    """

    name: str
    revision: str
    device: str
    dtype: str
    world_size: int
    worker_pids: tuple[int, ...]


@dataclass(frozen=True)
class Made:
    """A chunk.

    Attributes:
        index: Chunk number.
        first_frame: Number of its first frame within the stream.
        frames: uint8 [F,H,W,3], perhaps memory that is used again when nothing refers to it any more.
        timings: Seconds per stage.
        stats: Measurements, see `engine.Chunk`.
        state: From which the stream continues after it; b"" unless the request keeps states.
    """

    index: int
    first_frame: int
    frames: NDArray[np.uint8]
    timings: dict[str, float]
    stats: dict[str, float]
    state: bytes


class Watch:
    """Who watches a production and may stop it; for the thread that produces.

    Args:
        observer: Is told how it goes on.
        stop: See `VideoRequest`.
    """

    def __init__(self, observer: Observer, stop: Callable[[], bool] | None = None) -> None:
        self.observer = observer
        self._stop = stop

    def check(self) -> None:
        """Raise Stopped if the production is to end."""
        if self._stop is not None and self._stop():
            raise Stopped


class Backend(Protocol):
    """A model that is ready, or can be made ready, for one stream after the other."""

    def load(self, watch: Watch) -> ModelFacts:
        """Load the model, unless that is done; says its phases.

        Raises:
            LiveTalkError: of the kind that says why not.
            Stopped: by the watch.
        """

    def open(self, job: Job, sound: SoundTrack, watch: Watch) -> Generator[Made, None, None]:
        """Open a stream, after `load`; the generator makes its chunks, and closing it gives the stream up.

        Raises:
            LiveTalkError, Stopped: here, and between any two chunks.
        """

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """The processes that compute now: a rank that died has been replaced."""

    def close(self) -> None:
        """Let the model go. Does not wait, and does nothing the second time."""


def make_backend(request: VideoRequest, dtype: str | None = None) -> Backend:
    """The backend that a request asks for, not loaded yet; close it when it is not needed any more.

    Whoever makes several videos keeps it and gives it to `produce` each time.

    Args:
        request: Its model, device, number format and world size are used.
        dtype: In place of the request's number format.

    Raises:
        DeviceError: a device or number format that this machine does not offer.
        ConfigError: a world that cannot be.
    """
    # Late: only one of them is needed.
    if request.world_size is None:
        from .local_backend import LocalBackend

        return LocalBackend(request.model, request.device, dtype or request.dtype, compiled=request.compile)
    from .daemon_backend import DaemonBackend, daemon_config

    return DaemonBackend(daemon_config(request, dtype))


def settled_device(device: str, dtype: str) -> tuple[str, str]:
    """Device and number format by the names that "auto" stands for here.

    Raises:
        DeviceError: what this machine does not offer.
    """
    if device == "auto" and not has_gpu_driver():
        device = "cpu"
    if device == "cpu" and dtype in _CPU_FORMATS:
        auto = "bf16" if cpu_has_bf16() else "fp32"
        return device, _CPU_FORMATS[dtype] or auto
    # Late: only torch knows what a GPU can do, and it takes seconds to import.
    from ..loading.placement import DTYPE_NAMES, choose_placement

    placement = choose_placement(device, dtype)
    name = next(key for key, value in DTYPE_NAMES.items() if value is placement.dtype)
    return str(placement.device), name
