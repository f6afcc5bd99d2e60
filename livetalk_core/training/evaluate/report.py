"""The result of an evaluation as JSON for programs and Markdown for people, with the bars it should clear."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .lips import LipScore, mean_score
from .look import Blinks, Borders, Drift, median


@dataclass(frozen=True)
class ClipResult:
    """Everything measured on one clip.

    Attributes:
        name, synthesiser: The voice.
        seed: Of the noise.
        frames: Length.
        lips: Of the generated video.
        on_truth: Of the true video: the ceiling of the measure.
        through_vae: Of the true video after the VAE; None without a VAE.
        heard: Of the audio encoder's own reading; None without its read-outs.
        loudness, loudness_db: What following the level alone would score.
        borders, true_borders, vae_borders: Jumps at chunk borders: generated, true, and true after the VAE.
        drift: Look per chunk.
        blinks: Per minute.
        seconds: Time that generating took.
    """

    name: str
    synthesiser: str
    seed: int
    frames: int
    lips: LipScore
    on_truth: LipScore
    through_vae: LipScore | None
    heard: LipScore | None
    loudness: float
    loudness_db: float
    borders: Borders
    true_borders: Borders
    vae_borders: Borders | None
    drift: Drift
    blinks: Blinks
    seconds: float


@dataclass(frozen=True)
class Bar:
    """One requirement: what, the figure, the limit it should keep, whether at least or at most."""

    what: str
    figure: float
    limit: float
    at_least: bool = True

    @property
    def passed(self) -> bool:
        """Whether the figure keeps its limit."""
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


@dataclass(frozen=True)
class Evaluation:
    """The result: clips, the long stream if one was made, and facts about model and machine."""

    model: str
    clips: tuple[ClipResult, ...]
    rollout: ClipResult | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def videos(self) -> tuple[ClipResult, ...]:
        """The clips and the long stream."""
        return self.clips if self.rollout is None else (*self.clips, self.rollout)

    @property
    def border_jump(self) -> dict[str, float]:
        """Median jump over the borders of all videos: generated, true, and true after the VAE (0 without one)."""
        kinds = {
            "generated": [clip.borders for clip in self.videos],
            "true": [clip.true_borders for clip in self.videos],
            "through_vae": [clip.vae_borders for clip in self.clips if clip.vae_borders is not None],
        }
        return {kind: median([jump for each in group for jump in each.jumps]) for kind, group in kinds.items()}

    @property
    def lips(self) -> LipScore:
        """Mean over the clips."""
        return mean_score([clip.lips for clip in self.clips])

    @property
    def loudness(self) -> float:
        """The better of the two loudness baselines, mean over the clips."""
        return max(mean([c.loudness for c in self.clips]), mean([c.loudness_db for c in self.clips]))

    @property
    def bars(self) -> tuple[Bar, ...]:
        """The requirements on the embedded model."""
        lips = self.lips
        made = lips.closures_made / lips.closures if lips.closures else 0.0
        within = mean([float(abs(clip.lips.lag) <= 1) for clip in self.clips])
        recognised = mean([float(clip.drift.identity.mean()) for clip in self.videos])
        return (
            Bar("lip score", lips.score, 0.65),
            Bar("lip score minus loudness alone", lips.score - self.loudness, 0.0),
            Bar("clips with best lag within one frame", within, 1.0),
            Bar("lip closures made", made, 0.6),
            Bar("ceiling of the measure", mean([clip.on_truth.score for clip in self.clips]), 0.97),
            Bar("jump at chunk borders", self.border_jump["generated"], 1.2, at_least=False),
            Bar("right person recognised", recognised, 1.0),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values only; NaN becomes null."""
        summary = {
            "lips": asdict(self.lips),
            "loudness_alone": self.loudness,
            "border_jump": self.border_jump,
            "synthesisers": _group_json(self.by_synthesiser()),
            "seeds": _group_json(self.by_seed()),
            "bars": [asdict(bar) | {"passed": bar.passed} for bar in self.bars],
        }
        rollout = None if self.rollout is None else _clip_json(self.rollout)
        plain = {
            "model": self.model, "facts": self.facts, "summary": summary,
            "clips": [_clip_json(clip) for clip in self.clips], "rollout": rollout,
        }  # fmt: skip
        cleaned: dict[str, Any] = plain_json(plain)
        return cleaned

    def by_synthesiser(self) -> dict[str, list[ClipResult]]:
        """Clips by the family of their voice, in order of first appearance."""
        return grouped(self.clips, lambda clip: clip.synthesiser)

    def by_seed(self) -> dict[str, list[ClipResult]]:
        """Clips by the seed of their noise."""
        return grouped(self.clips, lambda clip: f"seed {clip.seed}")

    def to_markdown(self) -> str:
        """Tables: requirements, lips per clip and synthesiser, look, drift of the long stream."""
        parts = [f"# Evaluation of {self.model}", bar_table(self.bars), "## Lips", self._lip_table(), _LIP_NOTE]
        parts += ["## Look", self._look_table(), _LOOK_NOTE]
        if self.rollout is not None:
            seconds = self.rollout.frames / 25
            parts += [f"## Drift over one stream of {seconds:.0f} s", _drift_table(self.rollout), _DRIFT_NOTE]
        if self.facts:
            parts += [
                "## Circumstances",
                "\n".join(f"* {name}: {value}" for name, value in self.facts.items()),
            ]
        return "\n\n".join(parts) + "\n"

    def _lip_table(self) -> str:
        head = ["clip", "score", "lag", "amplitude (std / p95)", "closures", "loudness (rms / dB)"]
        head += ["true video", "through VAE", "audio encoder"]
        rows = [_lip_row(self._label(clip), [clip]) for clip in self.clips]
        for groups in (self.by_synthesiser(), self.by_seed()):
            if len(groups) > 1:
                rows += [_lip_row(f"*{name}, mean of {len(clips)}*", clips) for name, clips in groups.items()]
        return table(head, [*rows, _lip_row("**all**", self.clips)])

    def _look_table(self) -> str:
        head = ["clip", "border jump (true / through VAE)", "without jaw", "motion", "sharpness", "eyes"]
        head += ["person", "blinks per minute (measured on true / drawn)", "backdrop colour"]
        return table(head, [_look_row(self._label(clip), clip) for clip in self.videos])

    def _label(self, clip: ClipResult) -> str:
        return clip.name if len(self.by_seed()) < 2 else f"{clip.name}, seed {clip.seed}"


_LIP_NOTE = (
    "score: correlation of the measured mouth opening with the phoneme track at the best lag (frames; "
    "positive = late). closures: m, b, p whose opening within one frame is at most 20 % of the clip's 95th "
    "percentile. loudness: what following the sound's level alone would score. The last three columns are "
    "ceilings: the measure on the true video, the true video through the VAE, the audio encoder's own reading."
)
_LOOK_NOTE = (
    "border jump: median frame difference at chunk borders over the median inside chunks; 8 s have only 7 "
    "borders, so single clips scatter, and the requirement pools the borders of all videos. motion: the median "
    "inside chunks, in steps of 255. sharpness: detail over that of the true video. backdrop colour: error "
    "against the reference, in steps of 255."
)
_DRIFT_NOTE = "Mean over the first and the last chunks (30, or a third of the stream where it is shorter)."


def _lip_row(name: str, clips: Sequence[ClipResult]) -> list[str]:
    lips = mean_score([clip.lips for clip in clips])
    ceilings = [
        [score.score for score in scores if score is not None]
        for scores in ([c.on_truth for c in clips], [c.through_vae for c in clips], [c.heard for c in clips])
    ]
    return [
        name, f"{lips.score:.3f}", f"{lips.lag:+d}", f"{lips.deviation_ratio:.2f} / {lips.height_ratio:.2f}",
        f"{lips.closures_made} of {lips.closures}",
        f"{mean([c.loudness for c in clips]):.2f} / {mean([c.loudness_db for c in clips]):.2f}",
        *(f"{mean(scores):.3f}" if scores else "–" for scores in ceilings),
    ]  # fmt: skip


def _look_row(label: str, clip: ClipResult) -> list[str]:
    drift, blinks = clip.drift, clip.blinks
    generated, true, coded = (_border_cells(each) for each in (clip.borders, clip.true_borders, clip.vae_borders))
    return [
        label,
        *(f"{a} ({b} / {c})" for a, b, c in zip(generated, true, coded, strict=True)),
        *(f"{values.mean():.2f}" for values in (drift.sharpness, drift.eyes, drift.identity)),
        f"{blinks.video:.0f} ({blinks.truth:.0f} / {blinks.drawn:.0f})",
        f"{drift.backdrop.mean():.2f}",
    ]


def _border_cells(borders: Borders | None) -> tuple[str, str, str]:
    if borders is None:
        return "–", "–", "–"
    return f"{borders.whole:.2f}", f"{borders.still:.2f}", f"{borders.inside:.2f}"


def _drift_table(clip: ClipResult) -> str:
    rows = [[name, f"{first:.3f}", f"{last:.3f}"] for name, (first, last) in clip.drift.ends().items()]
    return table(["figure", "first", "last"], rows)


def bar_table(bars: Sequence[Bar]) -> str:
    """Requirements and whether they are met, as Markdown."""
    rows = []
    for bar in bars:
        limit = f"{'≥' if bar.at_least else '≤'} {bar.limit:g}"
        rows.append([bar.what, f"{bar.figure:.3f}", limit, "yes" if bar.passed else "**no**"])
    return table(["requirement", "figure", "bar", "met"], rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _clip_json(clip: ClipResult) -> dict[str, Any]:
    plain = asdict(clip)
    plain["drift"] = {name: values.tolist() for name, values in plain["drift"].items()}
    plain["drift_ends"] = clip.drift.ends()
    return plain


def grouped(clips: Sequence[ClipResult], key: Callable[[ClipResult], str]) -> dict[str, list[ClipResult]]:
    """Clips by a key of theirs, in order of first appearance."""
    groups: dict[str, list[ClipResult]] = {}
    for clip in clips:
        groups.setdefault(key(clip), []).append(clip)
    return groups


def _group_json(groups: dict[str, list[ClipResult]]) -> dict[str, Any]:
    return {
        name: {"lips": asdict(mean_score([c.lips for c in clips])), "clips": len(clips)}
        for name, clips in groups.items()
    }


def plain_json(value: Any) -> Any:
    """The value without tuples and without numbers that JSON has none for: those become null."""
    if isinstance(value, dict):
        return {key: plain_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def mean(values: Sequence[float]) -> float:
    """The mean; NaN of nothing."""
    return sum(values) / len(values) if values else float("nan")
