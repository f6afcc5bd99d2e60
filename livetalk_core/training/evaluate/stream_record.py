"""One long stream: measured as it comes, and the figures of several as a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cases import FPS, Frames, Speaker
from .comparison import show_lags
from .lips import LipScore, lip_score
from .tables import plain_json, table
from .video import VideoMeasures, VideoMeter

CURVES = {"color": "colour", "sharpness": "sharpness", "identity": "likeness", "flicker": "flicker"}
"""Measure of a video over time -> its name in reports."""


@dataclass(frozen=True)
class StreamRecord:
    """One long stream.

    Attributes:
        speaker: Who spoke.
        measures: Look over time against the reference picture.
        lips: Against the phonemes.
        first, last: The first and the last whole chunk, uint8 [F,H,W,3].
        last_start: Frame that the last one begins with.
        real_time_factor: Time of making over time shown.
    """

    speaker: Speaker
    measures: VideoMeasures
    lips: LipScore
    first: Frames
    last: Frames
    last_start: int
    real_time_factor: float

    def ends(self, name: str, between: str = "→") -> str:
        """A measure over the first and over the last chunks."""
        first, last = self.measures.ends()[name]
        return f"{first:.2f} {between} {last:.2f}"


def record_stream(chunks: Iterable[Frames], speaker: Speaker, name: str, slice_frames: int) -> StreamRecord:
    """Measure a long stream of chunks uint8 [F,H,W,3] as it comes; only two chunks of pictures are kept."""
    meter = VideoMeter(slice_frames, speaker.reference)
    first: Frames | None = None
    last, last_start, shown = None, 0, 0
    spent, asked = 0.0, time.monotonic()
    for frames in chunks:
        spent += time.monotonic() - asked
        meter.add(frames)
        first = frames if first is None else first
        if last is None or len(frames) == slice_frames:
            last, last_start = frames, shown
        shown += len(frames)
        asked = time.monotonic()
    measures = meter.finish(name, speaker.speech.samples)
    lips = lip_score(measures.opening, speaker.speech)
    assert first is not None and last is not None  # without frames there are no measures
    return StreamRecord(speaker, measures, lips, first, last, last_start, spent * FPS / shown)


@dataclass(frozen=True)
class StreamsReport:
    """All long streams of a model."""

    model: str
    records: tuple[StreamRecord, ...]
    chunks: int
    seed: int
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Ends, lips and border jumps per person, and the curves."""
        people = [
            {
                "person": record.speaker.identity.seed,
                "lips": vars(record.lips),
                "border_jump": record.measures.border_jump,
                "real_time_factor": record.real_time_factor,
                "ends": record.measures.ends(),
                "curves": {name: getattr(record.measures, name).round(5).tolist() for name in CURVES},
            }
            for record in self.records
        ]
        plain: dict[str, Any] = plain_json(
            {"model": self.model, "chunks": self.chunks, "seed": self.seed, "facts": self.facts, "people": people}
        )
        return plain

    def to_markdown(self) -> str:
        """A row per person and the mean over people: first 30 chunks, then last 30."""
        seconds = self.records[0].measures.frames / FPS
        head = ["person", *CURVES.values(), "border jump", "lip score", "lag", "closures", "real-time factor"]
        rows = [_row(str(number), [record]) for number, record in enumerate(self.records, 1)]
        if len(self.records) > 1:
            rows += [_row("**mean**", self.records), _change_row(self.records)]
        who = f"{len(self.records)} held-out {'people' if len(self.records) > 1 else 'person'}"
        parts = [
            f"# {self.model}: streams of {seconds:.0f} s",
            f"{who}, all held-out voices in turn, {self.chunks} chunks, seed {self.seed}.",
            table(head, rows),
            _NOTE,
            "\n".join(f"* {name}: {value}" for name, value in self.facts.items()),
        ]
        return "\n\n".join(parts) + "\n"


_NOTE = (
    "First → last: means over the first and the last 30 chunks (a third of fewer than 90), against the reference "
    "picture. Colour: distance of Lab moments, 3 is visible. Sharpness: over the picture's. Likeness: structural "
    "similarity of what stands still, 1 is the same. Flicker: of what stands still, steps of 255. Border jump: median "
    "over the median change inside chunks. Lips: correlation with the phoneme track."
)


def _row(label: str, records: Sequence[StreamRecord]) -> list[str]:
    ends = {name: np.mean([record.measures.ends()[name] for record in records], axis=0) for name in CURVES}
    lags = [record.lips.lag for record in records]
    return [
        label, *(f"{first:.2f} → {last:.2f}" for first, last in ends.values()),
        f"{_mean(records, lambda r: r.measures.border_jump):.2f}", f"{_mean(records, lambda r: r.lips.score):.3f}",
        show_lags((min(lags), max(lags))),
        f"{sum(r.lips.closures_made for r in records)} of {sum(r.lips.closures for r in records)}",
        f"{_mean(records, lambda r: r.real_time_factor):.2f}",
    ]  # fmt: skip


def _change_row(records: Sequence[StreamRecord]) -> list[str]:
    """By how much the means over people change from first to last."""
    cells = []
    for name in CURVES:
        first, last = np.mean([record.measures.ends()[name] for record in records], axis=0)
        cells.append(f"{(last / max(first, 1e-9) - 1) * 100:+.1f} %")
    return ["change", *cells, "", "", "", "", ""]


def _mean(records: Sequence[StreamRecord], take: Callable[[StreamRecord], float]) -> float:
    return float(np.mean([take(record) for record in records]))
