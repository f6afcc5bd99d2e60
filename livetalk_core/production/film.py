"""The files a production writes: the video, the state after its newest chunk, the report."""

from __future__ import annotations

import time

from ..chunking import chunk_span
from ..media import VideoWriter, frame_digest, write_atomic
from .facts import Made
from .observer import Observer
from .prepare import Job
from .report import ChunkRecord, Report, Status
from .sound_track import SoundTrack


class Film:
    """Video, state and report of one production, always in step with each other.

    Args:
        job: What is made.
        report: Grows with every chunk.
        observer: Is told of every chunk.
        started: `time.perf_counter()` when the production began.
    """

    def __init__(self, job: Job, report: Report, observer: Observer, started: float) -> None:
        self.job = job
        self.report = report
        self.observer = observer
        self.track = _sound_track(job)
        self._started = started
        self._writer: VideoWriter | None = None

    def add(self, made: Made) -> None:
        """Write a chunk, then the state after it.

        Raises:
            OutputError: a file cannot be written; the video is gone then, unless it was the state.
        """
        config = self.job.config
        if self._writer is None:
            self.report.seconds["first_chunk"] = time.perf_counter() - self._started
            self._writer = self._open_writer()
        begun = time.perf_counter()
        fps, count, per_frame = self.report.fps, len(made.frames), config.geometry.samples_per_frame
        samples = self.track.take((made.first_frame + count) * per_frame)
        self._writer.write(made.frames, samples)
        if self.job.request.state is not None:
            write_atomic(self.job.request.state, made.state)
        stages = {**made.timings, "write": time.perf_counter() - begun}
        record = ChunkRecord(
            index=made.index,
            first_pts=made.first_frame / fps,
            frames=count,
            duration=count / fps,
            seconds=sum(stages.values()),
            stages=stages,
            sha256=frame_digest(made.frames),
            stats=made.stats,
        )
        self.report.chunks.append(record)
        heard = chunk_span(made.index, config.geometry, config.audio.mode).stop_frame * per_frame
        self.report.audio_seconds = min(self.track.samples, heard) / config.geometry.sample_rate
        self.observer.chunk(record, made.frames, samples)

    def finish(self, status: Status, signal: int | None = None) -> None:
        """Close the video and write the report.

        Raises:
            OutputError: a file cannot be written.
        """
        self.observer.phase("finishing")
        self.report.status, self.report.signal = status, signal
        if self._writer is not None:
            self._writer.finish_partial()
        self.report.seconds["total"] = time.perf_counter() - self._started
        if self.job.request.report is not None:
            write_atomic(self.job.request.report, self.report.to_json())

    @property
    def continues(self) -> bool:
        """Whether there is a state, and the video that it continues can still be kept."""
        kept = self._writer is not None and self._writer.intact
        return kept and self.job.request.state is not None and bool(self.report.chunks)

    def discard(self) -> None:
        """Leave no video."""
        if self._writer is not None:
            self._writer.discard()

    def _open_writer(self) -> VideoWriter:
        config = self.job.config
        geometry = config.geometry
        return VideoWriter(
            self.job.request.output, config.width, config.height, geometry.fps, geometry.sample_rate
        )


def _sound_track(job: Job) -> SoundTrack:
    """The sound from the first frame on that is going to be made."""
    saved, geometry = job.saved, job.config.geometry
    if saved is None:
        return SoundTrack(job.sound)
    first = chunk_span(saved.chunk, geometry, job.config.audio.mode).first_frame
    # In whole mode the stream compares the digest of the entire sound instead.
    heard = saved.samples if job.config.audio.mode == "stream" else 0
    return SoundTrack(job.sound, first * geometry.samples_per_frame, heard, saved.ring.samples)
