"""The result of an evaluation as JSON for programs and Markdown for people, with the bars it should clear."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from .cases import FPS
from .clip_result import ClipResult, grouped
from .clip_tables import DRIFT_NOTE, LIP_NOTE, LOOK_NOTE, drift_table, lip_table, look_table
from .lips import LipScore, mean_score
from .look import median
from .tables import Bar, bar_table, mean, plain_json


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
        rollout = None if self.rollout is None else self.rollout.to_json()
        plain = {
            "model": self.model, "facts": self.facts, "summary": summary,
            "clips": [clip.to_json() for clip in self.clips], "rollout": rollout,
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
        parts = [f"# Evaluation of {self.model}", bar_table(self.bars)]
        parts += ["## Lips", lip_table(self.clips, [self.by_synthesiser(), self.by_seed()]), LIP_NOTE]
        parts += ["## Look", look_table(self.videos), LOOK_NOTE]
        if self.rollout is not None:
            seconds = self.rollout.frames / FPS
            parts += [f"## Drift over one stream of {seconds:.0f} s", drift_table(self.rollout), DRIFT_NOTE]
        if self.facts:
            parts += [
                "## Circumstances",
                "\n".join(f"* {name}: {value}" for name, value in self.facts.items()),
            ]
        return "\n\n".join(parts) + "\n"


def _group_json(groups: dict[str, list[ClipResult]]) -> dict[str, Any]:
    return {
        name: {"lips": asdict(mean_score([c.lips for c in clips])), "clips": len(clips)}
        for name, clips in groups.items()
    }
