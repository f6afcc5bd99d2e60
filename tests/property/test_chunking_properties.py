"""Chunking: every frame once, in order, over the right sound, for any length and geometry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livetalk_core.chunking import (
    Mode,
    chunk_count,
    chunk_span,
    chunk_spans,
    padded_frames,
    total_frames,
    window_rows,
)
from livetalk_core.config import ChunkGeometry

pytestmark = pytest.mark.property

MODES: st.SearchStrategy[Mode] = st.sampled_from(("stream", "whole"))


@st.composite
def geometries(draw: st.DrawFn) -> ChunkGeometry:
    stride = draw(st.integers(1, 8))
    motion = draw(st.integers(0, 4))
    latents = draw(st.integers(motion + 1, motion + 12))
    fps = draw(st.sampled_from((10, 16, 20, 25, 32, 50)))
    frames = 1 + latents * stride
    return ChunkGeometry(
        frames=frames,
        motion_frames=1 + motion * stride,
        fps=fps,
        temporal_stride=stride,
        window_seconds=-(-frames // fps) + draw(st.integers(0, 3)),
    )


@given(geometry=geometries(), mode=MODES, samples=st.integers(1, 3_000_000))
def test_every_frame_is_handed_out_exactly_once(geometry: ChunkGeometry, mode: Mode, samples: int) -> None:
    frames = total_frames(samples, geometry)
    spans = list(chunk_spans(frames, geometry, mode))
    covered = [frame for span in spans for frame in range(span.first_frame, span.stop_frame)]
    assert covered == list(range(padded_frames(frames, geometry, mode)))
    assert spans[-1].first_frame < frames <= spans[-1].stop_frame


@given(geometry=geometries(), samples=st.integers(1, 3_000_000))
def test_video_lasts_as_long_as_the_sound(geometry: ChunkGeometry, samples: int) -> None:
    frames = total_frames(samples, geometry)
    assert frames >= 1
    assert abs(frames * geometry.samples_per_frame - samples) < geometry.samples_per_frame


@given(geometry=geometries(), mode=MODES, index=st.integers(0, 10_000))
def test_a_chunk_decodes_one_frame_per_row_of_features(
    geometry: ChunkGeometry, mode: Mode, index: int
) -> None:
    span = chunk_span(index, geometry, mode)
    assert span.drop + span.frames == span.features == geometry.frames
    assert span.motion_latents == (1 if index == 0 else geometry.motion_latents)


@given(geometry=geometries(), index=st.integers(0, 10_000))
def test_whole_mode_shows_every_frame_over_its_own_sound(geometry: ChunkGeometry, index: int) -> None:
    span = chunk_span(index, geometry, "whole")
    assert span.first_feature + span.drop == span.first_frame


@given(geometry=geometries(), mode=MODES, index=st.integers(0, 1000))
def test_a_chunk_continues_from_the_last_frames_of_the_one_before(
    geometry: ChunkGeometry, mode: Mode, index: int
) -> None:
    before, after = chunk_span(index, geometry, mode), chunk_span(index + 1, geometry, mode)
    assert after.first_frame == before.stop_frame
    assert after.drop == geometry.motion_frames


@given(geometry=geometries(), mode=MODES, frames=st.integers(1, 100_000))
def test_no_chunk_more_than_needed(geometry: ChunkGeometry, mode: Mode, frames: int) -> None:
    count = chunk_count(frames, geometry, mode)
    assert count == 1 or chunk_span(count - 2, geometry, mode).stop_frame < frames


@given(
    first=st.integers(0, 300), count=st.integers(1, 50), total=st.integers(1, 400), context=st.integers(0, 5)
)
def test_windows_are_centred_and_stay_inside(first: int, count: int, total: int, context: int) -> None:
    rows = window_rows(first, count, total, context)
    assert len(rows) == count and {len(row) for row in rows} == {2 * context + 1}
    for position, row in enumerate(rows):
        assert row == sorted(row) and row[0] >= 0 and row[-1] < total
        assert row[context] == min(first + position, total - 1)
