"""Which frames, samples and audio features belong to chunk k; integers only.

Two modes, as published. In *stream* mode chunk k brings the `slice_frames` frames from
`k * slice_frames` on; it is decoded with `motion_frames` older frames in front, which are not handed out.
In *whole* mode chunk 0 hands out all its frames, every later chunk its last `slice_frames`, so that video
frame i lies over audio frame i. The published code hands out only `slice_frames` of chunk 0 there, which
shows the picture `motion_frames` early, and it drops the last window; in both modes it drops what does not
fill a chunk. Here the tail is padded with silence and trimmed after decoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .config import ChunkGeometry

Mode = Literal["stream", "whole"]


@dataclass(frozen=True)
class ChunkSpan:
    """What one chunk covers.

    Attributes:
        index: Chunk number k, from 0.
        first_frame: First video frame of the stream that the chunk hands out.
        frames: How many frames it hands out when it is full.
        drop: Decoded frames before the first one handed out.
        first_feature: First row of audio features: within the sliding window (stream) or the clip (whole).
        features: Rows of audio features, one per decoded frame.
        motion_latents: Latent frames known before sampling.
    """

    index: int
    first_frame: int
    frames: int
    drop: int
    first_feature: int
    features: int
    motion_latents: int

    @property
    def stop_frame(self) -> int:
        """One past the last video frame that the chunk hands out."""
        return self.first_frame + self.frames


def chunk_span(index: int, geometry: ChunkGeometry, mode: Mode) -> ChunkSpan:
    """What chunk `index` covers in the given mode."""
    step, drop = geometry.slice_frames, geometry.motion_frames
    # A single picture is one latent frame; later chunks continue from `motion_frames` frames.
    motion = geometry.motion_latents if index else 1
    if mode == "stream":
        feature = geometry.window_frames - geometry.frames
        return ChunkSpan(index, index * step, step, drop, feature, geometry.frames, motion)
    if index == 0:
        return ChunkSpan(0, 0, geometry.frames, 0, 0, geometry.frames, motion)
    return ChunkSpan(index, index * step + drop, step, drop, index * step, geometry.frames, motion)


def total_frames(samples: int, geometry: ChunkGeometry) -> int:
    """Video frames over `samples` audio samples: nearest whole number, at least 1."""
    per_frame = geometry.samples_per_frame
    return max(1, (2 * samples + per_frame) // (2 * per_frame))


def adds_a_frame(chunk: int, heard: int, more: int, geometry: ChunkGeometry) -> bool:
    """Whether chunk `chunk` of a stream in stream mode has a frame to show for `more` samples after `heard`.

    The tail of a sound may be too short to bring the nearest whole number of frames up; the very first sample
    always shows one.
    """
    return more > 0 and (chunk == 0 or total_frames(heard + more, geometry) > chunk * geometry.slice_frames)


def chunk_count(frames: int, geometry: ChunkGeometry, mode: Mode) -> int:
    """Chunks needed for `frames` >= 1 video frames."""
    first = chunk_span(0, geometry, mode).frames
    return 1 + max(0, -(-(frames - first) // geometry.slice_frames))


def chunk_spans(frames: int, geometry: ChunkGeometry, mode: Mode) -> Iterator[ChunkSpan]:
    """The chunks of a clip of `frames` video frames, in order; only the last may be handed out in part."""
    return (chunk_span(k, geometry, mode) for k in range(chunk_count(frames, geometry, mode)))


def padded_frames(frames: int, geometry: ChunkGeometry, mode: Mode) -> int:
    """Video frames up to the end of the last chunk: what the sound has to be padded to."""
    return chunk_span(chunk_count(frames, geometry, mode) - 1, geometry, mode).stop_frame


def window_rows(first: int, count: int, total: int, context: int) -> list[list[int]]:
    """For each of `count` frames from `first` on the feature rows `context` before to `context` after it.

    Rows outside [0, total) repeat the first or last one. Shape [count][2*context+1].
    """
    span = range(-context, context + 1)
    return [[min(max(row + offset, 0), total - 1) for offset in span] for row in range(first, first + count)]
