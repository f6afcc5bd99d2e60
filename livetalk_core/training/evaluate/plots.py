"""Plots of an evaluation: mouths, and the look of a stream over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...media import curves_plot, loudness_envelope, mouth_plot, panels_plot
from .cases import FPS, EvaluationCase
from .talk import Judged


def plot_mouth(each: Judged, path: Path) -> None:
    """Opening of one clip: measured, meant, and the loudness of its sound."""
    times = np.arange(len(each.opening)) / FPS
    envelope = loudness_envelope(each.case.speech.samples)
    title = f"Mouth opening, {each.case.name}"
    mouth_plot(times, each.opening, envelope, path, title, each.case.opening)


def plot_drift(long: Judged, slice_frames: int, out: Path) -> None:
    """Colour error and sharpness of a long stream over time, as drift_colour.png and drift_sharpness.png."""
    drift = long.result.drift
    seconds = np.arange(len(drift.backdrop)) * slice_frames / FPS
    colours = {
        "background": (seconds, drift.backdrop),
        "whole frame": (seconds, drift.colour),
        "true video": (seconds, np.zeros(len(seconds))),
    }
    curves_plot(colours, out / "drift_colour.png", "Colour error, steps of 255", "seconds")
    detail = {
        "whole frame": (seconds, drift.sharpness),
        "eyes": (seconds, drift.eyes),
        "true video": (seconds, np.ones(len(seconds))),
    }
    curves_plot(detail, out / "drift_sharpness.png", "Sharpness, share of the true video's", "seconds")


def plot_mouths(
    openings: dict[str, list[NDArray[np.float32]]], cases: Sequence[EvaluationCase], path: Path
) -> None:
    """The first clip of each family of voices: meant opening, student, teacher."""
    first = {case.speech.synthesiser: number for number, case in reversed(list(enumerate(cases)))}
    names = list(openings)
    panels: dict[str, dict[str, Any]] = {}
    for number in sorted(first.values()):
        case = cases[number]
        curves = {name: openings[name][number] for name in (names[0], names[-1])}
        times = np.arange(len(case.opening)) / FPS
        panels[case.name] = {
            name: (times[: len(curve)], curve) for name, curve in {"meant": case.opening, **curves}.items()
        }
    panels_plot(panels, path, "Mouth opening", "first clip of each family of voices, first seed; 1 is wide open")
