"""The report of a production: what was made, from what, how fast, and the digest of every chunk."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import msgspec

from .. import __version__
from ..telemetry import summarise

FORMAT, VERSION = "livetalk-report", 1
Status = Literal["complete", "interrupted", "failed"]


class ChunkRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One written chunk.

    Attributes:
        index: Chunk number within the stream.
        first_pts: Presentation time of its first frame within the stream, in seconds.
        frames: Number of frames handed out.
        duration: Their length in seconds of video.
        seconds: Time it took to make and write them.
        stages: That time by stage.
        stats: What the engine measured: drift, whether the next chunk was re-anchored, see `engine.Chunk`.
        sha256: Digest of their RGB bytes.
    """

    index: int
    first_pts: float
    frames: int
    duration: float
    seconds: float
    stages: dict[str, float]
    sha256: str
    stats: dict[str, float] = msgspec.field(default_factory=dict)


class Report(msgspec.Struct, kw_only=True):
    """Everything about one production; grows by a `ChunkRecord` per chunk.

    Attributes:
        status: "failed" only where an error ended the stream and what was made before it was kept.
        model, revision: Name and fingerprint of the weights.
        audio_seconds: Sound used so far.
        seconds: Wall clock: "load", "prepare", "first_chunk" (from the start to the first frame), "total".
        world_size, worker_pids: Processes that computed, at the end: a rank that died was replaced.
        signal: Number of the signal that interrupted.
    """

    model: str
    revision: str
    seed: int
    width: int
    height: int
    fps: int
    steps: int
    shift: float
    mode: str
    prompt: str
    color_strength: float
    device: str
    dtype: str
    audio: str
    image: str
    output: str
    chunk_frames: int
    motion_frames: int
    border_fade: int = 0
    lookback: int = 0
    compiled: bool = False
    resumed_from: int | None = None
    status: Status = "complete"
    signal: int | None = None
    audio_seconds: float = 0.0
    seconds: dict[str, float] = msgspec.field(default_factory=dict)
    chunks: list[ChunkRecord] = msgspec.field(default_factory=list)
    world_size: int = 1
    worker_pids: list[int] = msgspec.field(default_factory=lambda: [os.getpid()])

    @property
    def frames(self) -> int:
        """Frames in the video."""
        return sum(chunk.frames for chunk in self.chunks)

    @property
    def video_seconds(self) -> float:
        """Length of the video."""
        return self.frames / self.fps

    @property
    def real_time_factor(self) -> float | None:
        """Time per second of video, without loading; below 1 is faster than it plays. None without frames."""
        return sum(chunk.seconds for chunk in self.chunks) / self.video_seconds if self.chunks else None

    def stages(self) -> dict[str, dict[str, float]]:
        """Per stage the total and the distribution over the chunks."""
        timings = [{**chunk.stages, "chunk": chunk.seconds} for chunk in self.chunks]
        return {
            name: {"total": values["mean"] * values["count"], **values}
            for name, values in summarise(timings).items()
        }

    def plain(self) -> dict[str, Any]:
        """The report as JSON types."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        chunks = fields.pop("chunks")
        return {
            "format": FORMAT,
            "version": VERSION,
            "livetalk": __version__,
            **fields,
            "frames": self.frames,
            "video_seconds": self.video_seconds,
            "real_time_factor": self.real_time_factor,
            "stages": self.stages(),
            "chunks": chunks,
        }

    def to_json(self) -> str:
        """The report as JSON text."""
        text = json.dumps(self.plain(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # Names of files that are no UTF-8 hold lone surrogates.
        return text.encode("utf-8", "backslashreplace").decode()
