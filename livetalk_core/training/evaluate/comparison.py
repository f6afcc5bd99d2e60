"""The result of a comparison: one table of several models and ceilings, and what the student has to reach."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from .cases import FPS
from .clip_result import ClipResult, grouped
from .lips import LipScore, mean_score
from .look import Borders, median
from .tables import Bar, bar_table, mean, plain_json, table


@dataclass(frozen=True)
class Figures:
    """What one column shows; None where it makes no sense.

    Attributes:
        score, by_seed, by_family: Lip score over all clips, per seed of the noise, per family of voices.
        lags: Least and greatest best lag of a clip, in frames; positive: the lips come late.
        amplitude: 95th percentile of the opening over that of the phoneme track.
        closures, closures_made: Lip closures (m, b, p) in the sound, and those made.
        border_jump: Median change at chunk borders over the median change inside chunks, borders of all clips.
        blinks: Per minute.
        sharpness, person: Detail over that of the true video; share of chunks in which the right person is recognised.
        real_time_factor: Time of making over time shown, here and now.
    """

    score: float
    by_seed: dict[str, float]
    by_family: dict[str, float]
    lags: tuple[int, int] | None = None
    amplitude: float | None = None
    closures: int = 0
    closures_made: int = 0
    border_jump: float | None = None
    blinks: float | None = None
    sharpness: float | None = None
    person: float | None = None
    real_time_factor: float | None = None


@dataclass(frozen=True)
class Column:
    """One column: clips, and where its figures are in them.

    Attributes:
        name: Heading.
        clips: Results, of all seeds.
        lips, borders, blinks: Take them from a clip; None where there are none.
        score: Takes the lip score from a clip where `lips` is not known.
        made: A model made these clips.
    """

    name: str
    clips: Sequence[ClipResult]
    lips: Callable[[ClipResult], LipScore | None] | None = None
    borders: Callable[[ClipResult], Borders | None] | None = None
    blinks: Callable[[ClipResult], float] | None = None
    score: Callable[[ClipResult], float] | None = None
    made: bool = False

    @property
    def is_known(self) -> bool:
        """Whether its lip scores were measured."""
        return self.score is not None or (self.lips is not None and self.lips(self.clips[0]) is not None)

    @cached_property
    def figures(self) -> Figures:
        """Everything that the table shows of it."""
        clips, made = self.clips, self.made
        families = {name: self._score(group) for name, group in grouped(clips, lambda c: c.synthesiser).items()}
        seeds = {name: self._score(group) for name, group in grouped(clips, lambda c: f"{c.seed}").items()}
        known = self._lips(clips)
        lips = mean_score(known) if known else None
        borders = [] if self.borders is None else [found for c in clips if (found := self.borders(c)) is not None]
        return Figures(
            self._score(clips), seeds if made else {}, families,
            lags=(min(s.lag for s in known), max(s.lag for s in known)) if known else None,
            amplitude=lips.height_ratio if lips else None,
            closures=lips.closures if lips else 0, closures_made=lips.closures_made if lips else 0,
            border_jump=median([jump for each in borders for jump in each.jumps]) if borders else None,
            blinks=mean([self.blinks(c) for c in clips]) if self.blinks else None,
            sharpness=mean([float(c.drift.sharpness.mean()) for c in clips]) if made else None,
            person=mean([float(c.drift.identity.mean()) for c in clips]) if made else None,
            real_time_factor=sum(c.seconds for c in clips) * FPS / sum(c.frames for c in clips) if made else None,
        )  # fmt: skip

    def _lips(self, clips: Sequence[ClipResult]) -> list[LipScore]:
        return [] if self.lips is None else [found for c in clips if (found := self.lips(c)) is not None]

    def _score(self, clips: Sequence[ClipResult]) -> float:
        if self.score is not None:
            return mean([self.score(c) for c in clips])
        return mean([each.score for each in self._lips(clips)])


@dataclass(frozen=True)
class Comparison:
    """Columns side by side: the student first, then other ways to run it, the teacher, loudness and ceilings."""

    student: str
    columns: tuple[Column, ...]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def bars(self) -> tuple[Bar, ...]:
        """What the student has to reach."""
        student = self.columns[0].figures
        teacher = [column for column in self.columns if column.made][-1].figures
        loudness = next(column for column in self.columns if column.score is not None).figures
        least, greatest = student.lags or (0, 0)
        return (
            Bar("lip score", student.score, 0.78),
            Bar("lip score minus the teacher's", student.score - teacher.score, -0.03),
            Bar("lip score minus loudness alone", student.score - loudness.score, 0.1),
            Bar("largest best lag of a clip, frames", float(max(-least, greatest, 0)), 1, at_least=False),
            Bar("opening amplitude of the true one", student.amplitude or 0.0, 0.8),
            Bar("lip closures made", student.closures_made / max(student.closures, 1), 0.8),
            Bar("jump at chunk borders", student.border_jump or 0.0, 1.2, at_least=False),
        )

    def to_json(self) -> dict[str, Any]:
        """Columns, bars, and every clip that a model made; plain values only."""
        clips = {
            column.name: [
                {"name": c.name, "seed": c.seed, "frames": c.frames, "seconds": c.seconds, "lips": asdict(c.lips)}
                for c in column.clips
            ]
            for column in self.columns
            if column.made
        }
        plain: dict[str, Any] = plain_json(
            {
                "student": self.student,
                "facts": self.facts,
                "columns": {column.name: asdict(column.figures) for column in self.columns},
                "bars": [asdict(bar) | {"passed": bar.passed} for bar in self.bars],
                "clips": clips,
            }
        )
        return plain

    def to_markdown(self) -> str:
        """What was compared, the table, the requirements."""
        made = self.columns[0].clips
        seeds = list(dict.fromkeys(clip.seed for clip in made))
        count = len(made) // len(seeds)
        seconds = sum(clip.frames for clip in made[:count]) / FPS
        intro = (
            f"{count} clips of held-out people and voices, {seconds:.0f} s in all, the same in every column; "
            f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}."
        )
        names = [column.name for column in self.columns]
        parts = [f"# {self.student} against its teacher", intro, table(["", *names], self._rows())]
        facts = [
            f"* {who}: {', '.join(f'{name} {value}' for name, value in each.items())}"
            for who, each in self.facts.items()
        ]
        parts += [_NOTE, "## What the student has to reach", bar_table(self.bars), "\n".join(facts)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _rows(self) -> list[list[str]]:
        figures = [column.figures for column in self.columns]
        seeds, families = figures[0].by_seed, figures[0].by_family
        rows = [["**lip score**", *(f"**{f.score:.3f}**" for f in figures)]]
        if len(seeds) > 1:
            rows += [[f"seed {seed}", *(_number(f.by_seed.get(seed)) for f in figures)] for seed in seeds]
        rows += [[family, *(_number(f.by_family.get(family)) for f in figures)] for family in families]
        return [
            *rows,
            ["best lag of a clip, frames", *(show_lags(f.lags) for f in figures)],
            ["opening amplitude", *(_number(f.amplitude, 2) for f in figures)],
            ["closures on m, b, p", *(_closures(f) for f in figures)],
            ["jump at chunk borders", *(_number(f.border_jump, 2) for f in figures)],
            ["blinks per minute", *(_number(f.blinks, 0) for f in figures)],
            ["sharpness", *(_number(f.sharpness, 2) for f in figures)],
            ["right person", *(_number(f.person, 2) for f in figures)],
            ["real-time factor", *(_number(f.real_time_factor, 2) for f in figures)],
        ]


_NOTE = (
    "Lip score: correlation of the measured mouth opening with the phoneme track at the best lag; a positive lag is "
    "late. Amplitude: 95th percentile of the opening over the track's. Closures: openings within one frame of m, b, p "
    "of at most 20 % of the clip's 95th percentile. Border jump: median change at chunk borders over the median change "
    "inside chunks. Sharpness: detail over the true video's. Loudness alone: a mouth that follows the sound's level. "
    "The real-time factor is of this machine at that time."
)


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def show_lags(lags: tuple[int, int] | None) -> str:
    """Least and greatest lag of some clips: "0", "-1 to 0"."""
    if lags is None:
        return "–"
    least, greatest = (f"{lag:+d}" if lag else "0" for lag in lags)
    return least if least == greatest else f"{least} to {greatest}"


def _closures(figures: Figures) -> str:
    if not figures.closures:
        return "–"
    return f"{figures.closures_made} of {figures.closures} = {figures.closures_made / figures.closures:.2f}"
