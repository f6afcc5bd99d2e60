"""What the running sink shows: progress on the node, phases, small pictures, events, the live stream, last frames."""

from __future__ import annotations

from collections import deque
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livetalk_core.media import FragmentWriter
from livetalk_core.production import ChunkRecord

from .host import HostNode
from .live import LIVE, LiveStream
from .phases import PHASES
from .runner import VideoShape

MAX_PREVIEW_SIDE = 512


class SinkView:
    """The `View` of a node that makes a video; as a context manager it ends the live stream.

    Args:
        node: Where it is shown.
        keep_frames: How many of the last frames `frames` holds.
        live: Whether the page may watch while it runs.
    """

    def __init__(self, node: HostNode, keep_frames: int, live: bool) -> None:
        self._node = node
        self._kept: deque[NDArray[np.uint8]] = deque(maxlen=keep_frames)
        self._shape: VideoShape | None = None
        self._live: LiveStream | None = LIVE.open() if live else None
        self._writer: FragmentWriter | None = None

    @property
    def frames(self) -> NDArray[np.uint8]:
        """The last frames, uint8 [n,H,W,3]."""
        return np.stack(self._kept)

    def poll(self) -> None:
        """See `View`."""
        self._node.poll()

    def phase(self, name: str) -> None:
        """See `View`."""
        self._node.send("livetalk.phase", phase=name, text=PHASES.get(name, name))

    def opened(self, shape: VideoShape) -> None:
        """See `View`."""
        self._shape = shape
        if self._live is not None:
            self._node.send("livetalk.stream", stream=self._live.name, width=shape.width, height=shape.height)

    def progress(self, done: float, total: float) -> None:
        """See `View`."""
        self._node.progress(min(1.0, done / total))

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """See `View`."""
        assert self._shape is not None
        self._show_live(record, frames, samples)
        self._kept.extend(frames[-(self._kept.maxlen or 0) :])
        # Whoever watches live needs no second, still picture on the node.
        watched = self._live is not None and self._live.readers > 0
        share = min(1.0, (record.index + 1) / self._shape.chunks)
        self._node.progress(share, None if watched else _preview(frames[0]))
        # With the stream's name: a page that was loaded again in between can go on watching.
        self._node.send(
            "livetalk.chunk", stream=self._live.name if self._live else None, index=record.index,
            first_pts=record.first_pts, frames=record.frames, duration=record.duration, seconds=record.seconds,
            sha256=record.sha256,
        )  # fmt: skip

    def __enter__(self) -> SinkView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is None:
            return
        if self._writer is not None and kind is None:
            self._live.put(self._writer.finish())
        LIVE.close(self._live)

    def _show_live(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """Encode for those who watch; as long as nobody does, it costs nothing."""
        shape = self._shape
        assert shape is not None
        if self._live is None or (self._writer is None and not self._live.readers):
            return
        if self._writer is None:
            first = round(record.first_pts * shape.fps)
            self._writer = FragmentWriter(shape.width, shape.height, shape.fps, shape.sample_rate, first)
            self._live.begin(self._writer.head, self._writer.content_type)
        self._live.put(self._writer.write(frames, samples))


def _preview(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(pixels)
    picture.thumbnail((MAX_PREVIEW_SIDE, MAX_PREVIEW_SIDE))
    return picture
