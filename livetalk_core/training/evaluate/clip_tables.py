"""Tables of an evaluation's clips, and what their columns mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .clip_result import ClipResult
from .lips import mean_score
from .look import Borders
from .tables import mean, table

LIP_NOTE = (
    "score: correlation of the measured mouth opening with the phoneme track at the best lag (frames; "
    "positive = late). closures: m, b, p whose opening within one frame is at most 20 % of the clip's 95th "
    "percentile. loudness: what following the sound's level alone would score. The last three columns are "
    "ceilings: the measure on the true video, the true video through the VAE, the audio encoder's own reading."
)
LOOK_NOTE = (
    "border jump: median frame difference at chunk borders over the median inside chunks; 8 s have only 7 "
    "borders, so single clips scatter, and the requirement pools the borders of all videos. motion: the median "
    "inside chunks, in steps of 255. sharpness: detail over that of the true video. backdrop colour: error "
    "against the reference, in steps of 255."
)
DRIFT_NOTE = "Mean over the first and the last chunks (30, or a third of the stream where it is shorter)."


def lip_table(clips: Sequence[ClipResult], groups: Sequence[Mapping[str, Sequence[ClipResult]]]) -> str:
    """A row per clip, per group where there are several, and for all."""
    head = ["clip", "score", "lag", "amplitude (std / p95)", "closures", "loudness (rms / dB)"]
    head += ["true video", "through VAE", "audio encoder"]
    rows = [_lip_row(_label(clip, clips), [clip]) for clip in clips]
    for named in groups:
        if len(named) > 1:
            rows += [_lip_row(f"*{name}, mean of {len(members)}*", members) for name, members in named.items()]
    return table(head, [*rows, _lip_row("**all**", clips)])


def look_table(clips: Sequence[ClipResult]) -> str:
    """A row per clip."""
    head = ["clip", "border jump (true / through VAE)", "without jaw", "motion", "sharpness", "eyes"]
    head += ["person", "blinks per minute (measured on true / drawn)", "backdrop colour"]
    return table(head, [_look_row(_label(clip, clips), clip) for clip in clips])


def _label(clip: ClipResult, clips: Sequence[ClipResult]) -> str:
    several = len({each.seed for each in clips}) > 1
    return f"{clip.name}, seed {clip.seed}" if several else clip.name


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


def drift_table(clip: ClipResult) -> str:
    """First and last chunks of a long stream."""
    rows = [[name, f"{first:.3f}", f"{last:.3f}"] for name, (first, last) in clip.drift.ends().items()]
    return table(["figure", "first", "last"], rows)
