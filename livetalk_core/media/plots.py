"""Plots for people: mouth opening against sound, and curves over time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from .atomic_file import AtomicFile, output_error
from .envelope import best_lag

PALETTE = ("#1f6feb", "#e5534b", "#2da44e", "#bf8700", "#8250df", "#57606a", "#d6409f", "#0a7e8c")

_INK = "#26282e"
_FAINT = "#767a82"
_SOUND = "#c9d3e3"
_ROW_SECONDS = 12.0
_MAX_ROWS = 5


def mouth_plot(
    times: ArrayLike,
    opening: ArrayLike,
    loudness: ArrayLike,
    path: str | os.PathLike[str],
    title: str = "Mouth opening and sound",
    truth: ArrayLike | None = None,
) -> tuple[float, int]:
    """Draw mouth opening over the loudness of the sound and print how well one follows the other.

    Args:
        times: Seconds of each video frame, [F].
        opening: Mouth opening 0..1 (scaled to its own range if it goes beyond), [F].
        loudness: Loudness 0..1, [F], see `loudness_envelope`.
        path: The PNG to write.
        title: Heading.
        truth: The mouth opening that was meant, where known, [F]; correlation is then against it.

    Returns:
        (correlation at the best lag, lag in frames; positive: the mouth comes late), as printed.

    Raises:
        OutputError: the path cannot be written.
    """
    t, mouth, sound = (np.asarray(curve, np.float32) for curve in (times, opening, loudness))
    if len(mouth) and (mouth.min() < 0 or mouth.max() > 1):
        mouth = (mouth - mouth.min()) / max(float(np.ptp(mouth)), 1e-6)
    meant = None if truth is None else np.asarray(truth, np.float32)
    correlation, lag = best_lag(mouth, sound if meant is None else meant)
    step = float(np.median(np.diff(t))) if len(t) > 1 else 0.04
    start = float(t[0]) if len(t) else 0.0
    total = float(t[-1]) - start + step if len(t) else step
    rows = int(min(_MAX_ROWS, max(1, np.ceil(total / _ROW_SECONDS))))
    # Several rows each begin at a full second.
    span = total if rows == 1 else float(np.ceil(total / rows))
    figure, axes = _stacked_figure(rows)
    for number, axis in enumerate(axes):
        left = start + number * span
        # One frame more on each side lets the curves run to the edge.
        inside = (t >= left - step) & (t <= left + span + step)
        _mouth_row(axis, t[inside], mouth[inside], sound[inside], None if meant is None else meant[inside])
        axis.set_xlim(left, left + span)
    against = "the sound" if meant is None else "the meant opening"
    delay = (
        f"lag {lag:+d} frame{'s' if abs(lag) > 1 else ''} ({lag * step * 1000:+.0f} ms)" if lag else "lag 0"
    )
    _head(figure, axes, title, f"correlation with {against} {correlation:.2f} at {delay}")
    _save(figure, path)
    return correlation, lag


def curves_plot(
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]],
    path: str | os.PathLike[str],
    title: str,
    x_label: str = "step",
    y_label: str = "",
    log_y: bool = False,
    smooth: int = 1,
) -> Path:
    """Draw named curves, such as losses over steps, into a PNG.

    Args:
        curves: Name -> (x [n], y [n]); values that are not finite leave a gap.
        path: The PNG to write.
        title, x_label, y_label: Texts.
        log_y: Logarithmic y axis.
        smooth: Running mean over this many points, drawn over the faint raw curve; 1 = off.

    Raises:
        OutputError: the path cannot be written.
    """
    figure = Figure(figsize=(10, 5), facecolor="white")
    figure.subplots_adjust(left=0.08, right=0.975, top=0.88, bottom=0.11)
    axis = figure.subplots()
    _dress(axis)
    for number, (name, (x, y)) in enumerate(curves.items()):
        color = PALETTE[number % len(PALETTE)]
        xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
        ys = np.where(np.isfinite(ys), ys, np.nan)
        smoothed = smooth > 1 and len(ys) > smooth
        axis.plot(
            xs,
            ys,
            color=color,
            alpha=0.22 if smoothed else 1.0,
            lw=1.0 if smoothed else 1.8,
            label=None if smoothed else name,
        )
        if smoothed:
            axis.plot(
                xs[smooth // 2 :][: len(ys) - smooth + 1],
                _running_mean(ys, smooth),
                color=color,
                lw=2.0,
                label=name,
            )
    if log_y:
        axis.set_yscale("log")
    axis.margins(x=0.01)
    axis.set_xlabel(x_label, color=_FAINT)
    axis.set_ylabel(y_label, color=_FAINT)
    axis.set_title(title, loc="left", fontsize=15, fontweight="bold", color=_INK, pad=14)
    if curves:
        axis.legend(frameon=False, labelcolor=_INK)
    return _save(figure, path)


def panels_plot(
    panels: Mapping[str, Mapping[str, tuple[ArrayLike, ArrayLike]]],
    path: str | os.PathLike[str],
    title: str,
    note: str = "",
    x_label: str = "seconds",
) -> Path:
    """Draw named curves in panels below each other over one horizontal axis, into a PNG.

    Args:
        panels: Title of a panel -> name of a curve -> (x [n], y [n]).
        path: The PNG to write.
        title, note, x_label: Texts.

    Raises:
        OutputError: the path cannot be written.
    """
    figure, axes = _stacked_figure(len(panels))
    # Room for the first panel's own title.
    figure.subplots_adjust(left=0.06, hspace=0.42, top=1 - 1.15 / figure.get_size_inches()[1])
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        _dress(axis)
        for number, (label, (x, y)) in enumerate(curves.items()):
            color = PALETTE[number % len(PALETTE)]
            marker = "." if np.size(x) < 3 else ""
            axis.plot(np.asarray(x), np.asarray(y), color=color, lw=1.8, label=label, marker=marker)
        axis.set_title(name, loc="left", fontsize=11, color=_INK)
        axis.margins(x=0.01, y=0.15)
    _head(figure, axes, title, note)
    axes[-1].set_xlabel(x_label, color=_FAINT)
    return _save(figure, path)


def _stacked_figure(rows: int) -> tuple[Figure, list[Any]]:
    """A figure with `rows` wide axes below each other and fixed margins for head and labels, in inches."""
    width, height = 12.0, 1.35 + 1.95 * rows
    figure = Figure(figsize=(width, height), facecolor="white")
    grid = figure.subplots(rows, 1, squeeze=False)
    figure.subplots_adjust(
        left=0.5 / width, right=1 - 0.25 / width, top=1 - 0.85 / height, bottom=0.55 / height, hspace=0.24
    )
    return figure, list(grid[:, 0])


def _head(figure: Figure, axes: list[Any], title: str, note: str) -> None:
    """Title and note on the left, legend on the right, unit of the time axis below."""
    width, height = figure.get_size_inches()
    left = 0.5 / width
    figure.text(left, 1 - 0.36 / height, title, fontsize=15, fontweight="bold", color=_INK)
    figure.text(left, 1 - 0.64 / height, note, fontsize=11, color=_FAINT)
    handles, labels = axes[0].get_legend_handles_labels()
    where = (1 - 0.2 / width, 1 - 0.12 / height)
    figure.legend(
        handles,
        labels,
        loc="upper right",
        bbox_to_anchor=where,
        # Two rows of at most four would reach into the note.
        ncols=max(1, len(labels)) if len(labels) <= 4 else 3,
        frameon=False,
        fontsize=11,
        labelcolor=_INK,
    )
    axes[-1].set_xlabel("seconds", color=_FAINT)


def _mouth_row(
    axis: Any,
    t: NDArray[np.float32],
    mouth: NDArray[np.float32],
    sound: NDArray[np.float32],
    meant: NDArray[np.float32] | None,
) -> None:
    _dress(axis)
    axis.fill_between(t, sound, color=_SOUND, lw=0, label="sound (dB)")
    if meant is not None:
        axis.plot(t, meant, color=PALETTE[1], lw=1.4, ls=(0, (4, 2)), label="meant opening")
    axis.plot(t, mouth, color=PALETTE[0], lw=2.0, solid_joinstyle="round", label="mouth opening")
    axis.set_ylim(0, 1.05)
    axis.set_yticks([0, 0.5, 1])


def _dress(axis: Any) -> None:
    """The common look: no box, faint grid, quiet numbers."""
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#d0d4da")
    axis.grid(axis="y", color="#eceef1", lw=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(which="both", colors=_FAINT, length=0, labelsize=10)


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    windows = np.lib.stride_tricks.sliding_window_view(values, width)
    # A window of gaps only stays a gap, without NumPy's warning about it.
    good = np.isfinite(windows)
    total = np.where(good, windows, 0.0).sum(axis=1)
    mean: NDArray[np.float64] = np.divide(
        total, good.sum(axis=1), out=np.full(len(total), np.nan), where=good.any(axis=1)
    )
    return mean


def _save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    # The canvas is named, so that no window system is ever asked for.
    canvas = FigureCanvasAgg(figure)
    with AtomicFile(path) as file:
        try:
            # No version in the metadata: equal curves give equal bytes.
            canvas.print_figure(file.temporary, format="png", dpi=120, metadata={"Software": None})
        except OSError as error:
            raise output_error(path, error) from error
    return file.path
