"""Chunking with the published geometry: the numbers of the specification."""

from __future__ import annotations

import subprocess
import sys

import pytest

from livetalk_core.chunking import chunk_count, chunk_span, total_frames, window_rows
from livetalk_core.config import ChunkGeometry

pytestmark = pytest.mark.unit

GEOMETRY = ChunkGeometry()


def test_stream_chunks_hand_out_28_frames_and_hear_the_end_of_the_window() -> None:
    first, third = chunk_span(0, GEOMETRY, "stream"), chunk_span(2, GEOMETRY, "stream")
    assert (first.first_frame, first.frames, first.drop, first.first_feature) == (0, 28, 5, 167)
    assert (third.first_frame, third.stop_frame, third.drop, third.first_feature) == (56, 84, 5, 167)


def test_whole_mode_keeps_all_frames_of_its_first_chunk() -> None:
    first, third = chunk_span(0, GEOMETRY, "whole"), chunk_span(2, GEOMETRY, "whole")
    assert (first.first_frame, first.stop_frame, first.drop, first.first_feature) == (0, 33, 0, 0)
    assert (third.first_frame, third.stop_frame, third.drop, third.first_feature) == (61, 89, 5, 56)


@pytest.mark.parametrize(
    ("seconds", "frames", "stream", "whole"),
    [(0.2, 5, 1, 1), (1.0, 25, 1, 1), (1.12, 28, 1, 1), (7.3, 183, 7, 7), (61, 1525, 55, 55)],
)
def test_lengths_of_ordinary_clips(seconds: float, frames: int, stream: int, whole: int) -> None:
    samples = round(seconds * 16_000)
    assert total_frames(samples, GEOMETRY) == frames
    assert chunk_count(frames, GEOMETRY, "stream") == stream
    assert chunk_count(frames, GEOMETRY, "whole") == whole


def test_the_last_full_window_of_a_whole_clip_is_not_lost() -> None:
    # 61 frames are exactly two windows; the published code makes one chunk of them.
    assert chunk_count(61, GEOMETRY, "whole") == 2


def test_windows_repeat_the_border_rows() -> None:
    assert window_rows(198, 2, 200, 2) == [[196, 197, 198, 199, 199], [197, 198, 199, 199, 199]]


def test_layer_zero_loads_no_heavy_library() -> None:
    code = (
        "import sys, livetalk_core.chunking, livetalk_core.telemetry;"
        "print(sorted({'torch', 'numpy', 'diffusers', 'transformers', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
