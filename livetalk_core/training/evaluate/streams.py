"""Does a model hold out? Held-out people speak for minutes; first and last chunks as figures and as a picture."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...engine import Engine, generate
from ...errors import ConfigError
from ...loading import load_model
from ...media import make_folder, write_atomic
from ..avatars.avatar import HELD_OUT_SEED
from .cases import FPS, Frames, Speaker, long_speech, make_speaker
from .comparison import show_lags
from .lips import LipScore, lip_score
from .report import plain_json, table
from .run import Tell, machine_facts
from .sheets import SheetRow, draw_sheet, telling_frames
from .talk import DEFAULT_SEED, size_and_geometry, stream_config
from .video import VideoMeasures, VideoMeter
from .video_report import plot_videos

_FIRST_PERSON = HELD_OUT_SEED + 200
_COLUMNS = 4
_NOTED = ("color", "sharpness", "identity")
_CURVES = {"color": "colour", "sharpness": "sharpness", "identity": "likeness", "flicker": "flicker"}


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
                "curves": {name: getattr(record.measures, name).round(5).tolist() for name in _CURVES},
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
        head = ["person", *_CURVES.values(), "border jump", "lip score", "lag", "closures", "real-time factor"]
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


def evaluate_streams(
    model: Path | str | None,
    out: Path,
    people: int = 6,
    seconds: float = 300.0,
    seed: int = DEFAULT_SEED,
    tell: Tell | None = None,
) -> StreamsReport:
    """Let held-out people speak for `seconds` each, in bounded memory; writes streams.json, .md, .png and .jpg.

    Raises:
        CheckpointError, DeviceError: the model cannot be loaded.
        ConfigError: nobody, no time, or a model that makes no square video at 25 frames per second.
        MissingDependencyError: the renderer or a synthesiser is not installed.
        OutputError: a result cannot be written.
    """
    bundle = load_model(model)
    size, geometry = size_and_geometry(bundle)
    chunks = _chunks(people, seconds, geometry.slice_frames)
    config = stream_config(bundle, seed)
    make_folder(out)
    records = []
    for number in range(people):
        speech = long_speech(chunks * geometry.slice_frames / FPS, first=number)
        speaker = make_speaker(_FIRST_PERSON + number, speech, size)
        stream = generate(Engine(bundle), config, Image.fromarray(speaker.reference), [speech.samples])
        frames = (chunk.frames for chunk in stream)
        records.append(record_stream(frames, speaker, f"person {number + 1}", geometry.slice_frames))
        if tell is not None:
            tell(_line(number + 1, people, records[-1]))
    report = StreamsReport(bundle.name, tuple(records), chunks, seed, machine_facts(bundle))
    write_atomic(out / "streams.json", json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    write_atomic(out / "streams.md", report.to_markdown())
    plot_videos([record.measures for record in records], out / "streams.png", f"Streams of {chunks} chunks")
    stream_sheet(records, out / "streams.jpg", geometry.slice_frames)
    return report


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


def stream_sheet(records: Sequence[StreamRecord], path: Path, slice_frames: int) -> Path:
    """Reference, frames of the first and of the last chunk of each person.

    Raises:
        OutputError: the path cannot be written.
    """
    rows = []
    for number, record in enumerate(records, 1):
        opening = record.speaker.opening
        shown, captions = [record.speaker.reference], ["reference"]
        for frames, start in ((record.first, 0), (record.last, record.last_start)):
            chosen = telling_frames(opening[start : start + slice_frames], _COLUMNS)
            shown += [frames[frame] for frame in chosen]
            captions += [_stamp(start + frame) for frame in chosen]
        # The sheet's font has no arrow.
        note = "\n".join(f"{_CURVES[name]} {_ends(record.measures, name, 'to')}" for name in _NOTED)
        rows.append(SheetRow(f"person {number}", shown, captions, note, begins_group=True))
    title = f"Held-out people: first and last chunk of {_length(records[0].measures.frames)}"
    return draw_sheet(rows, path, title, breaks=(1, 1 + _COLUMNS))


def _chunks(people: int, seconds: float, slice_frames: int) -> int:
    """Whole chunks that hold so many seconds."""
    if people < 1:
        raise ConfigError(f"Streams of {people} people were asked for.", "Ask for at least one.", setting="streams")
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"A stream of {seconds:g} s cannot be made.", "Allowed: above 0.", setting="stream_seconds")
    return max(1, -(-round(seconds * FPS) // slice_frames))


def _row(label: str, records: Sequence[StreamRecord]) -> list[str]:
    ends = {name: np.mean([record.measures.ends()[name] for record in records], axis=0) for name in _CURVES}
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
    for name in _CURVES:
        first, last = np.mean([record.measures.ends()[name] for record in records], axis=0)
        cells.append(f"{(last / max(first, 1e-9) - 1) * 100:+.1f} %")
    return ["change", *cells, "", "", "", "", ""]


def _mean(records: Sequence[StreamRecord], take: Callable[[StreamRecord], float]) -> float:
    return float(np.mean([take(record) for record in records]))


def _line(number: int, people: int, record: StreamRecord) -> str:
    ends = ", ".join(f"{label} {_ends(record.measures, name)}" for name, label in _CURVES.items())
    return f"person {number} of {people}: {ends}, real-time factor {record.real_time_factor:.2f}"


def _ends(measures: VideoMeasures, name: str, between: str = "→") -> str:
    first, last = measures.ends()[name]
    return f"{first:.2f} {between} {last:.2f}"


def _length(frames: int) -> str:
    seconds = frames / FPS
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _stamp(frame: int) -> str:
    seconds = frame / FPS
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"
