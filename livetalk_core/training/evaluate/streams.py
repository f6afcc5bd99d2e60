"""Does a model hold out? Held-out people speak for minutes; first and last chunks as figures and as a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...engine import Engine, generate
from ...errors import ConfigError
from ...loading import load_model
from ...media import make_folder, write_atomic
from ..avatars.avatar import HELD_OUT_SEED
from ..methods.guidance import guided_bundle
from .cases import FPS, long_speech, make_speaker
from .run import Tell, machine_facts
from .sheets import SheetRow, draw_sheet, telling_frames
from .stream_record import CURVES, StreamRecord, StreamsReport, record_stream
from .talk import DEFAULT_SEED, OWN_MANNER, Manner, size_and_geometry, stream_config
from .video_report import plot_videos

_FIRST_PERSON = HELD_OUT_SEED + 200
_COLUMNS = 4
_NOTED = ("color", "sharpness", "identity")


def evaluate_streams(
    model: Path | str | None,
    out: Path,
    people: int = 6,
    seconds: float = 300.0,
    seed: int = DEFAULT_SEED,
    manner: Manner = OWN_MANNER,
    tell: Tell | None = None,
) -> StreamsReport:
    """Let held-out people speak for `seconds` each, in bounded memory; writes streams.json, .md, .png and .jpg.

    Raises:
        CheckpointError, DeviceError: the model cannot be loaded.
        ConfigError: nobody, no time, steps or guidance that the model cannot be run with, or a model that makes no
            square video at 25 frames per second.
        MissingDependencyError: the renderer or a synthesiser is not installed.
        OutputError: a result cannot be written.
    """
    bundle = load_model(model)
    size, geometry = size_and_geometry(bundle)
    chunks = _chunks(people, seconds, geometry.slice_frames)
    config = stream_config(bundle, seed, manner.steps)
    engine = Engine(guided_bundle(bundle, manner.guidance))
    make_folder(out)
    records = []
    for number in range(people):
        speech = long_speech(chunks * geometry.slice_frames / FPS, first=number)
        speaker = make_speaker(_FIRST_PERSON + number, speech, size)
        stream = generate(engine, config, Image.fromarray(speaker.reference), [speech.samples])
        frames = (chunk.frames for chunk in stream)
        records.append(record_stream(frames, speaker, f"person {number + 1}", geometry.slice_frames))
        if tell is not None:
            tell(_line(number + 1, people, records[-1]))
    name = bundle.name if manner == OWN_MANNER else f"{bundle.name}, {manner.describe(bundle)}"
    report = StreamsReport(name, tuple(records), chunks, seed, machine_facts(bundle))
    write_atomic(out / "streams.json", json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    write_atomic(out / "streams.md", report.to_markdown())
    plot_videos([record.measures for record in records], out / "streams.png", f"Streams of {chunks} chunks")
    stream_sheet(records, out / "streams.jpg", geometry.slice_frames)
    return report


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
        note = "\n".join(f"{CURVES[name]} {record.ends(name, 'to')}" for name in _NOTED)
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


def _line(number: int, people: int, record: StreamRecord) -> str:
    ends = ", ".join(f"{label} {record.ends(name)}" for name, label in CURVES.items())
    return f"person {number} of {people}: {ends}, real-time factor {record.real_time_factor:.2f}"


def _length(frames: int) -> str:
    seconds = frames / FPS
    return f"{seconds:.0f} seconds" if seconds < 90 else f"{seconds / 60:.0f} minutes"


def _stamp(frame: int) -> str:
    seconds = frame / FPS
    return f"{int(seconds // 60)}:{seconds % 60:05.2f}"
