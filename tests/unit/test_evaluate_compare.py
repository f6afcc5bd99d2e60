"""Student against teacher, and streams over minutes: on videos whose qualities are known."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_evaluate import speech
from typer.testing import CliRunner

from livetalk_core.cli import app
from livetalk_core.config import ChunkGeometry
from livetalk_core.errors import OutputError
from livetalk_core.training.avatars.avatar import HELD_OUT_SEED
from livetalk_core.training.evaluate.cases import EvaluationCase, Frames, cut_speech, make_case, make_speaker
from livetalk_core.training.evaluate.compare import compare_talks
from livetalk_core.training.evaluate.comparison import Comparison
from livetalk_core.training.evaluate.lips import lip_score
from livetalk_core.training.evaluate.run import make_ceilings
from livetalk_core.training.evaluate.stream_record import StreamRecord, StreamsReport, record_stream
from livetalk_core.training.evaluate.streams import stream_sheet
from livetalk_core.training.evaluate.talk import Talk

pytestmark = pytest.mark.unit
GEOMETRY = ChunkGeometry()
STEP = GEOMETRY.slice_frames
SEEDS = (3, 4)


@pytest.fixture(scope="module")
def cases() -> list[EvaluationCase]:
    return [make_case(HELD_OUT_SEED + n, speech(3.0, n, f"synth{n}"), 64) for n in range(2)]


def true(case: EvaluationCase, seed: int) -> Frames:
    return case.truth


def late(case: EvaluationCase, seed: int) -> Frames:
    """As late, in frames, as the seed says."""
    return np.concatenate([np.repeat(case.truth[:1], seed, axis=0), case.truth[: len(case.truth) - seed]])


def early(case: EvaluationCase, seed: int) -> Frames:
    return np.concatenate([case.truth[seed:], np.repeat(case.truth[-1:], seed, axis=0)])


def shut(case: EvaluationCase, seed: int) -> Frames:
    return np.repeat(case.reference[None], len(case.truth), axis=0)


def compare(
    student: Talk, teacher: Talk, cases: list[EvaluationCase], out: Path, seeds: tuple[int, ...] = SEEDS
) -> Comparison:
    ceilings = make_ceilings(cases, GEOMETRY, None, [case.opening for case in cases])
    return compare_talks({"student": student, "teacher": teacher}, cases, ceilings, seeds, GEOMETRY, out)


@pytest.fixture(scope="module")
def written(cases: list[EvaluationCase], tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """The true video against shut mouths, and the folder of the report; read only."""
    out = tmp_path_factory.mktemp("comparison") / "new" / "folder"
    return compare(true, shut, cases, out), out


def test_true_video_reaches_the_ceilings(written: tuple[Comparison, Path]) -> None:
    comparison, _ = written
    assert [column.name for column in comparison.columns] == [
        "student", "teacher", "loudness alone", "true video", "audio encoder",
    ]  # fmt: skip
    student, teacher, loudness, truth, heard = (column.figures for column in comparison.columns)
    assert student.by_seed == {"3": student.score, "4": student.score}
    assert student.score == truth.score > 0.95
    assert heard.score == pytest.approx(1)
    assert list(student.by_family) == ["synth0", "synth1"]
    assert np.mean(list(student.by_family.values())) == pytest.approx(student.score)
    assert teacher.score == 0 < loudness.score < student.score
    assert (student.lags, student.border_jump) == ((0, 0), truth.border_jump)
    assert student.closures == 2 * truth.closures > 0
    # The test's noise is as loud as its mouth is open, and drawn people also move where a chunk happens to begin.
    not_asked = {"lip score minus loudness alone", "jump at chunk borders"}
    assert {bar.what for bar in comparison.bars if not bar.passed} <= not_asked


def test_seeds_are_shown_one_by_one(cases: list[EvaluationCase], tmp_path: Path) -> None:
    comparison = compare(late, true, cases, tmp_path)
    assert comparison.columns[0].figures.lags == SEEDS
    failed = {bar.what: bar.figure for bar in comparison.bars if not bar.passed}
    assert failed["largest best lag of a clip, frames"] == 4
    assert "lip closures made" in failed
    table = [line for line in comparison.to_markdown().splitlines() if line.startswith("| ")]
    assert any(line.startswith("| best lag of a clip, frames | +3 to +4 | 0 |") for line in table)
    for seed in SEEDS:
        assert any(line.startswith(f"| seed {seed} |") for line in table)
    alone = [clip.lips.score for clip in comparison.columns[0].clips if clip.seed == 3]
    assert comparison.columns[0].figures.by_seed["3"] == pytest.approx(np.mean(alone))


def test_early_lips_are_as_bad_as_late_ones(cases: list[EvaluationCase], tmp_path: Path) -> None:
    comparison = compare(early, true, cases[:1], tmp_path, seeds=(4,))
    assert comparison.columns[0].figures.lags == (-4, -4)
    assert {bar.what: bar.figure for bar in comparison.bars}["largest best lag of a clip, frames"] == 4


def test_student_worse_than_its_teacher_fails(cases: list[EvaluationCase], tmp_path: Path) -> None:
    failed = {bar.what for bar in compare(shut, true, cases[:1], tmp_path, seeds=(3,)).bars if not bar.passed}
    lips = {"lip score", "lip score minus the teacher's", "lip score minus loudness alone"}
    assert lips | {"opening amplitude of the true one"} <= failed


def test_comparison_is_written_as_json_table_and_plot(written: tuple[Comparison, Path]) -> None:
    comparison, out = written
    plain = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert plain["columns"]["student"]["score"] == pytest.approx(comparison.columns[0].figures.score)
    assert len(plain["clips"]["teacher"]) == 2 * len(SEEDS)
    lines = (out / "comparison.md").read_text(encoding="utf-8").splitlines()
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {1 + 1 + len(comparison.columns), 5}
    with Image.open(out / "mouths.png") as picture:
        assert min(picture.size) > 200


def stream(seconds: float, cast: float = 0.0) -> StreamRecord:
    """A true video, its colour cast growing by `cast` steps over the whole of it."""
    said = speech(seconds, 1)
    case = make_case(HELD_OUT_SEED + 5, said, 64)
    growing = np.linspace(0, cast, len(case.truth))[:, None, None, None] * np.array([1.0, -1.0, 0.0])
    video = np.clip(case.truth + growing, 0, 255).astype(np.uint8)
    chunks = (video[start : start + STEP] for start in range(0, len(video), STEP))
    return record_stream(chunks, make_speaker(HELD_OUT_SEED + 5, said, 64), "person", STEP)


def test_long_stream_keeps_its_first_and_last_whole_chunk() -> None:
    record = stream(9.0)
    assert record.measures.frames == 225 == 8 * STEP + 1
    assert record.first.shape == record.last.shape == (STEP, 64, 64, 3)
    assert record.last_start == 7 * STEP
    case = make_case(HELD_OUT_SEED + 5, speech(9.0, 1), 64)
    assert np.array_equal(record.last, case.truth[record.last_start : record.last_start + STEP])
    assert record.lips.score == pytest.approx(lip_score(record.measures.opening, case.speech).score)
    assert record.lips.lag == 0
    assert np.array_equal(record.speaker.reference, case.reference)


def test_long_stream_keeps_no_more_than_two_chunks_of_pictures() -> None:
    said = speech(12.0, 1)
    born: list[weakref.ref[Frames]] = []
    most = 0

    def chunks() -> Iterator[Frames]:
        nonlocal most
        for number in range(10):
            frames = np.full((STEP, 64, 64, 3), number, np.uint8)
            born.append(weakref.ref(frames))
            yield frames
            del frames
            most = max(most, sum(each() is not None for each in born))

    record = record_stream(chunks(), make_speaker(HELD_OUT_SEED, cut_speech(said, 10 * STEP / 25), 64), "person", STEP)
    assert (record.first[0, 0, 0, 0], record.last[0, 0, 0, 0]) == (0, 9)
    assert most <= 3


def test_drift_of_a_long_stream_is_in_the_table(tmp_path: Path) -> None:
    steady, drifting = stream(9.0), stream(9.0, cast=60.0)
    first, last = drifting.measures.ends()["color"]
    assert last > 2 * first
    assert last > 3 * steady.measures.ends()["color"][1]
    report = StreamsReport("tiny", (steady, drifting), 11, 1, {"threads": 1})
    text = report.to_markdown()
    assert f"{first:.2f} → {last:.2f}" in text
    assert "| change | +" in text
    assert len(json.loads(json.dumps(report.to_json()))["people"]) == 2
    sheet = stream_sheet([steady, drifting], tmp_path / "streams.jpg", STEP)
    with Image.open(sheet) as picture:
        assert picture.format == "JPEG"
        assert picture.width > 9 * 128


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("embedded", "--teacher", "nowhere"), "nowhere"),
        (("embedded", "--teacher", "embedded", "--teacher-steps", "0"), "steps is 0"),
        (("embedded", "--teacher", "embedded", "--teacher-guidance", "nan"), "Guidance is nan"),
        (("embedded", "--teacher", "embedded", "--seeds", "0"), "No seed"),
        (("embedded", "--teacher", "embedded", "--clips", "0"), "0 clips"),
        (("embedded", "--teacher", "embedded", "--streams", "2"), "one at a time"),
        (("embedded", "--steps", "0"), "steps is 0"),
        (("embedded", "--steps", "1001"), "steps is 1001"),
        (("embedded", "--guidance", "-1"), "Guidance is -1"),
        (("embedded", "--seconds", "0"), "Clips of 0 s"),
        (("embedded", "--streams", "-1"), "-1 people"),
        (("embedded", "--streams", "1", "--stream-seconds", "inf"), "inf s"),
        (("embedded", "--streams", "2", "--clips", "3"), "--clips does nothing in an evaluation with --streams"),
        (("embedded", "--streams", "2", "--steps", "0"), "steps is 0"),
        (("embedded", "--teacher", "embedded", "--rollout-seconds", "9"), "--rollout-seconds does nothing"),
        (("embedded", "--teacher-steps", "9"), "--teacher-steps does nothing in an evaluation without --teacher"),
        (("embedded", "--stream-seconds", "9"), "--stream-seconds does nothing in an evaluation without --streams"),
        (("embedded", "--slice-frames", "9"), "--slice-frames does nothing in an evaluation of a model"),
        (("talk.mp4", "--steps", "2"), "--steps does nothing in an evaluation of videos"),
        (("talk.mp4", "--teacher", "embedded"), "no model folder"),
        (("embedded", "talk.mp4"), "alone"),
        ((".",), "not a model folder"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_file_in_the_place_of_the_folder_is_named_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="a file is in its way"):
        compare(true, true, [make_case(HELD_OUT_SEED, speech(1.0), 32)], tmp_path / "out")


def test_teacher_of_another_size_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    command = ["evaluate", "embedded", "--teacher", str(tiny_model_folder), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "128x128 in chunks of 33 frames" in " ".join(result.output.split())
    assert not (tmp_path / "out").exists()
