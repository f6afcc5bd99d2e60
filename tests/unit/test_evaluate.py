"""The evaluation on videos with a known defect: each figure sees its own; true videos score the ceiling."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from tiny_bundle import GEOMETRY as TINY_GEOMETRY
from tiny_bundle import tiny_bundle

from livetalk_core.config import ChunkGeometry
from livetalk_core.errors import CheckpointError, ConfigError
from livetalk_core.training.avatars.avatar import HELD_OUT_SEED
from livetalk_core.training.evaluate.cases import (
    EvaluationCase,
    Frames,
    cut_speech,
    join_speech,
    long_utterances,
    make_case,
)
from livetalk_core.training.evaluate.ceilings import find_audio_encoder, heard_opening
from livetalk_core.training.evaluate.clip_result import ClipResult
from livetalk_core.training.evaluate.lips import LipScore, mean_score
from livetalk_core.training.evaluate.look import Gallery, measure_borders
from livetalk_core.training.evaluate.run import EvaluationConfig, evaluate_embedded, evaluate_talk
from livetalk_core.training.evaluate.sheets import telling_frames
from livetalk_core.training.evaluate.talk import Manner, Talk, engine_talk, judge
from livetalk_core.training.speech.held_out import EvaluationUtterance
from livetalk_core.training.speech.visemes import PhonemeEvent, closure_times, mouth_track

pytestmark = pytest.mark.unit

GEOMETRY = ChunkGeometry()
PHONEMES = (*"aeiouapbmstk", "")
STEP = GEOMETRY.slice_frames


def speech(seconds: float, seed: int = 0, synthesiser: str = "test") -> EvaluationUtterance:
    """Random phonemes with noise that is loud where the mouth is open; needs no synthesiser."""
    rng = np.random.default_rng(seed)
    events, at = [], 0.2
    while at < seconds - 0.3:
        length = float(rng.uniform(0.06, 0.15))
        events.append(PhonemeEvent(at, at + length, str(rng.choice(PHONEMES))))
        at += length
    mouth = mouth_track(events, seconds)
    samples = rng.standard_normal(len(mouth) * 640) * np.repeat(0.02 + 0.1 * mouth[:, 0] ** 0.5, 640)
    return EvaluationUtterance(
        name=f"{synthesiser}/v{seed}",
        synthesiser=synthesiser,
        voice=f"v{seed}",
        samples=samples.astype(np.float32),
        mouth=mouth,
        closures=closure_times(events),
    )


@pytest.fixture(scope="module")
def case() -> EvaluationCase:
    return make_case(HELD_OUT_SEED + 3, speech(5.2), 128)


@pytest.fixture(scope="module")
def gallery(case: EvaluationCase) -> Gallery:
    return Gallery([case], range(40), case.size)


def result_of(video: Frames, case: EvaluationCase, gallery: Gallery) -> ClipResult:
    talk: Talk = lambda case, seed: video  # noqa: E731
    return judge(talk, case, GEOMETRY, gallery).result


def test_true_video_scores_the_ceiling(case: EvaluationCase, gallery: Gallery) -> None:
    result = result_of(case.truth, case, gallery)
    assert result.lips == result.on_truth
    assert result.lips.score > 0.98
    assert result.lips.lag == 0
    assert result.lips.deviation_ratio == pytest.approx(1, abs=0.05)
    assert result.lips.closures > 5
    assert result.lips.closures_made >= 0.9 * result.lips.closures
    assert result.loudness < result.lips.score
    assert result.drift.backdrop.max() == 0
    assert result.drift.sharpness == pytest.approx(np.ones(len(result.drift.sharpness)))
    assert result.drift.identity.min() == 1
    assert result.borders == result.true_borders
    assert len(result.borders.jumps) == (len(case.truth) - 1) // STEP
    # No chunk begins every five frames: what happens there is what happens everywhere.
    assert measure_borders(case.truth, 5).whole == pytest.approx(1, abs=0.3)
    assert result.blinks.video == result.blinks.truth == pytest.approx(result.blinks.drawn, abs=10)


def test_late_video_shows_its_lag(case: EvaluationCase, gallery: Gallery) -> None:
    late = np.concatenate([np.repeat(case.truth[:1], 3, axis=0), case.truth[:-3]])
    lips = result_of(late, case, gallery).lips
    assert lips.lag == 3
    assert lips.score > 0.95
    assert lips.closures_made < 0.6 * lips.closures


def test_frozen_mouth_scores_nothing(case: EvaluationCase, gallery: Gallery) -> None:
    frozen = np.repeat(case.reference[None], len(case.truth), axis=0)
    result = result_of(frozen, case, gallery)
    assert (result.lips.score, result.lips.lag) == (0.0, 0)
    assert result.lips.deviation_ratio < 0.05
    assert result.blinks.video == 0
    assert result.borders.inside == 0 and result.lips.closures_made == 0
    assert result.borders.jumps == (0.0,) * len(result.borders.jumps)
    # Where nothing moves but at a border, the jump knows no measure.
    frozen[GEOMETRY.slice_frames :] //= 2
    assert result_of(frozen, case, gallery).borders.jumps[0] == float("inf")


def test_growing_colour_cast_is_drift(case: EvaluationCase, gallery: Gallery) -> None:
    cast = np.linspace(0, 20, len(case.truth))[:, None, None, None] * np.array([1.0, -1.0, 0.0])
    video = np.clip(case.truth + cast, 0, 255).astype(np.uint8)
    drift = result_of(video, case, gallery).drift
    assert (np.diff(drift.backdrop) > 0.5).all()
    first, last = drift.ends()["backdrop"]
    assert last > 3 * first > 0
    assert drift.colour[-1] > 3 * drift.colour[0]


def test_blur_is_seen_as_lost_sharpness(case: EvaluationCase, gallery: Gallery) -> None:
    video = gaussian_filter(case.truth, (0, 1.0, 1.0, 0))
    drift = result_of(video, case, gallery).drift
    assert drift.sharpness.max() < 0.75
    assert drift.eyes.max() < 0.75
    assert drift.backdrop.max() < 1


def test_jumps_at_borders_are_seen(case: EvaluationCase, gallery: Gallery) -> None:
    chunk = np.arange(len(case.truth)) // STEP
    shifted = np.where((chunk % 2)[:, None, None, None] == 1, np.roll(case.truth, 1, axis=2), case.truth)
    borders, true = result_of(shifted, case, gallery).borders, result_of(case.truth, case, gallery).borders
    assert borders.whole > 2 * true.whole
    assert borders.still > 2 * true.still
    assert borders.inside == pytest.approx(true.inside, rel=0.05)


def test_another_person_is_noticed(case: EvaluationCase, gallery: Gallery) -> None:
    other = make_case(7, case.speech, case.size)
    assert result_of(other.truth, case, gallery).drift.identity.max() == 0


def test_report_and_pictures_are_written(tmp_path: Path) -> None:
    cases = [make_case(HELD_OUT_SEED + n, speech(3.0, n, f"synth{n % 2}"), 64) for n in range(3)]
    long = make_case(HELD_OUT_SEED + 9, speech(4.0, 9), 64)
    heard = [case.opening for case in cases]
    evaluation = evaluate_talk(lambda c, _: c.truth, cases, long, tmp_path, GEOMETRY, heard=heard, plots=1)
    plain = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert plain["summary"]["lips"]["score"] == pytest.approx(evaluation.lips.score)
    assert plain["summary"]["synthesisers"]["synth0"]["clips"] == 2
    assert plain["clips"][0]["through_vae"] is None
    assert plain["clips"][0]["heard"]["score"] == pytest.approx(1)
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "synth1, mean of 1" in text
    assert all(line.count("|") == 10 for line in text.splitlines() if line.startswith("| synth"))
    for name in ("clips", "rollout", "mouth_1", "drift_colour", "drift_sharpness"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 200
    assert not (tmp_path / "mouth_2.png").exists()
    pooled = np.median([jump for clip in evaluation.videos for jump in clip.borders.jumps])
    assert evaluation.border_jump == {"generated": pooled, "true": pooled, "through_vae": 0.0}
    assert all(bar.passed for bar in evaluation.bars if bar.what != "jump at chunk borders")


def test_bars_fail_for_a_random_model(tmp_path: Path) -> None:
    bundle = tiny_bundle()
    cases = [make_case(HELD_OUT_SEED + 1, speech(1.2), 32)]
    evaluation = evaluate_talk(engine_talk(bundle), cases, None, tmp_path, TINY_GEOMETRY, vae=bundle.vae)
    clip = evaluation.clips[0]
    assert clip.frames == len(cases[0].truth) == 30
    assert len(clip.drift.backdrop) == -(-30 // TINY_GEOMETRY.slice_frames)
    assert clip.through_vae is not None
    assert evaluation.border_jump["through_vae"] > 0
    assert {bar.what: bar.passed for bar in evaluation.bars}["lip score"] is False
    assert not (tmp_path / "rollout.png").exists()


def test_every_clip_is_made_with_every_seed(tmp_path: Path) -> None:
    cases = [make_case(HELD_OUT_SEED + n, speech(3.0, n), 64) for n in range(2)]
    late = {7: 0, 8: 2}
    talk: Talk = lambda case, seed: np.roll(case.truth, late[seed], axis=0)  # noqa: E731
    evaluation = evaluate_talk(talk, cases, None, tmp_path, GEOMETRY, seeds=(7, 8), plots=0)
    assert [(clip.seed, clip.lips.lag) for clip in evaluation.clips] == [(7, 0), (7, 0), (8, 2), (8, 2)]
    assert [len(clips) for clips in evaluation.by_seed().values()] == [2, 2]
    text = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert "*seed 8, mean of 2*" in text
    assert "test/v1, seed 7" in text


def test_same_seed_gives_the_same_figures(tmp_path: Path) -> None:
    """All but the times are a function of model, cases and seed; another seed is another video."""
    cases = [make_case(HELD_OUT_SEED + 1, speech(1.2), 32)]
    found = []
    for name, seeds in (("a", (5, 6)), ("b", (5,))):
        talk = engine_talk(tiny_bundle(), Manner(steps=2))
        evaluate_talk(talk, cases, None, tmp_path / name, TINY_GEOMETRY, seeds=seeds, plots=0)
        clips = json.loads((tmp_path / name / "evaluation.json").read_text(encoding="utf-8"))["clips"]
        found += [{key: value for key, value in clip.items() if key not in ("seconds", "seed")} for clip in clips]
    first, other, again = found
    assert first == again
    assert first != other


def test_steps_and_guidance_reach_the_model() -> None:
    case = make_case(HELD_OUT_SEED + 1, speech(0.4), 32)
    ways = (Manner(), Manner(4), Manner(2), Manner(4, 3.0))
    videos = [engine_talk(tiny_bundle(), manner)(case, 1) for manner in ways]
    assert np.array_equal(videos[0], videos[1])
    assert not np.array_equal(videos[0], videos[2])
    assert not np.array_equal(videos[0], videos[3])
    assert [manner.describe(tiny_bundle()) for manner in (Manner(), Manner(40, 1.5))] == [
        "4 steps", "40 steps, guidance 1.5",
    ]  # fmt: skip


@pytest.mark.parametrize("settings", [{"clips": 0}, {"seconds": 0.0}, {"seconds": float("nan")}, {"seeds": ()}])
def test_settings_without_sense_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        EvaluationConfig(**settings)  # type: ignore[arg-type]


def test_telling_frames_alternate_between_open_and_closed(case: EvaluationCase) -> None:
    chosen = telling_frames(case.opening, 8)
    assert chosen == sorted(chosen)
    openings = case.opening[chosen]
    assert openings[0::2].min() > openings[1::2].max()
    assert telling_frames(case.opening[:3], 8) == [0, 1, 2]


def test_synthesisers_take_turns_and_short_words_are_left_out() -> None:
    voices = [speech(5, 0, "a"), speech(5, 1, "a"), speech(1, 2, "c"), speech(5, 3, "b")]
    assert [voice.name for voice in long_utterances(voices)] == ["a/v0", "b/v3", "a/v1"]


def test_joined_and_cut_speech_keeps_sound_mouth_and_closures_together() -> None:
    parts = [speech(2.0, 0), speech(3.0, 1)]
    joined = join_speech(parts)
    assert joined.frames == 125
    assert len(joined.samples) == 125 * 640
    assert joined.closures[len(parts[0].closures) :] == pytest.approx(parts[1].closures + 2.0)
    cut = cut_speech(joined, 2.0)
    for name in ("samples", "mouth", "closures"):
        assert np.array_equal(getattr(cut, name), getattr(parts[0], name))
    assert cut_speech(replace(cut, name="x"), 99).frames == 50


def test_audio_encoder_is_found_only_with_its_read_outs(tmp_path: Path) -> None:
    assert find_audio_encoder(None) is None
    assert find_audio_encoder(tmp_path) is None
    (tmp_path / "mouth_heads.safetensors").touch()
    assert find_audio_encoder(tmp_path) == tmp_path / "audio_encoder"


def test_missing_audio_encoder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        heard_opening(tmp_path / "audio_encoder", [])


def test_unknown_model_folder_is_named_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        evaluate_embedded(tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("error")
def test_clips_whose_mouth_has_nothing_to_open_for_do_not_count_in_mean_ratios() -> None:
    nothing = float("nan")
    still, moving = LipScore(0.5, 0, nothing, nothing, 0, 0), LipScore(0.7, -1, 0.8, 0.9, 2, 1)
    assert mean_score([still, moving]) == LipScore(0.6, -1, 0.8, 0.9, 2, 1)
    assert np.isnan(mean_score([still]).height_ratio)
