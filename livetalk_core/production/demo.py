"""The demonstration: the bundled portrait speaks the bundled sentence, with pictures that prove it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..config import ChunkGeometry
from ..errors import OutputError
from ..lip_sync import mouth_opening
from ..media import ContactSheet, contact_sheet, loudness_envelope, make_folder, mouth_plot, write_atomic
from .facts import ModelFacts
from .observer import Observer, Phase
from .prepare import Job
from .producer import produce
from .report import ChunkRecord, Report
from .request import BUNDLED_SPEECH, VideoRequest

_COLUMNS, _ROWS = 6, 3


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration left behind.

    Attributes:
        video, sheet, plot, summary, report_file: The files.
        report: How the video was made.
        correlation: Of mouth opening and loudness, at the best lag.
        lag: That lag in frames; positive where the mouth comes late.
    """

    video: Path
    sheet: Path
    plot: Path
    summary: Path
    report_file: Path
    report: Report
    correlation: float
    lag: int


def make_demo(folder: Path, settings: VideoRequest | None = None, observer: Observer | None = None) -> Demonstration:
    """Make demo.mp4, contact_sheet.png, mouth.png, report.json and summary.txt in `folder`.

    Args:
        folder: Made if absent.
        settings: Model, device, seed ... to use; its sound and files are replaced.
        observer: Is told how it goes on.

    Raises:
        OutputError: the folder cannot be made or written, or nothing was made before an interruption.
        LiveTalkError: as `produce`.
    """
    make_folder(folder)
    video, report_file = folder / "demo.mp4", folder / "report.json"
    base = settings or VideoRequest(audio="", output=video)
    request = replace(base, audio=str(BUNDLED_SPEECH), output=video, report=report_file)
    exhibits = Exhibits(observer)
    report = produce(request, exhibits)
    return exhibits.leave(folder, report)


class Exhibits(Observer):
    """Passes everything on, and keeps what the pictures of a demonstration are made of.

    Args:
        listener: Is told everything.
    """

    def __init__(self, listener: Observer | None = None) -> None:
        self._listener = listener or Observer()
        self._geometry = ChunkGeometry()
        self._sheet = ContactSheet(_ROWS, _COLUMNS, self._geometry.fps)
        self._opening: list[NDArray[np.float32]] = []
        self._samples: list[NDArray[np.float32]] = []

    def leave(self, folder: Path, report: Report) -> Demonstration:
        """Write contact_sheet.png, mouth.png and summary.txt beside demo.mp4 and report.json.

        Raises:
            OutputError: they cannot be written, or there was no chunk.
        """
        if not report.chunks:
            raise OutputError("Interrupted before the first frame: there is nothing to show.", "Run it again.")
        sheet = contact_sheet(self._sheet.frames(), folder / "contact_sheet.png", _COLUMNS, _title(report))
        opening = np.concatenate(self._opening)
        rate, fps = self._geometry.sample_rate, self._geometry.fps
        loudness = loudness_envelope(np.concatenate(self._samples), rate, fps)[: len(opening)]
        times = np.arange(len(opening)) / report.fps
        plot = folder / "mouth.png"
        correlation, lag = mouth_plot(times, opening, loudness, plot)
        summary = write_atomic(folder / "summary.txt", _summary(report, correlation, lag))
        video, facts = folder / "demo.mp4", folder / "report.json"
        return Demonstration(video, sheet, plot, summary, facts, report, correlation, lag)

    def show(self, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """Keep frames [F,H,W,3] and the sound [S] that came with them."""
        self._sheet.add(frames)
        self._opening.append(mouth_opening(frames))
        self._samples.append(samples)

    def phase(self, name: Phase) -> None:
        """See `Observer`."""
        self._listener.phase(name)

    def checked(self, job: Job) -> None:
        """See `Observer`."""
        self._geometry = job.config.geometry
        self._sheet = ContactSheet(_ROWS, _COLUMNS, self._geometry.fps)
        self._listener.checked(job)

    def loaded(self, model: ModelFacts) -> None:
        """See `Observer`."""
        self._listener.loaded(model)

    def step(self, chunk: int, step: int, steps: int) -> None:
        """See `Observer`."""
        self._listener.step(chunk, step, steps)

    def chunk(self, record: ChunkRecord, frames: NDArray[np.uint8], samples: NDArray[np.float32]) -> None:
        """See `Observer`."""
        self.show(frames, samples)
        self._listener.chunk(record, frames, samples)


def _title(report: Report) -> str:
    return f"{report.model}, seed {report.seed}, {report.width}x{report.height}, {report.dtype}"


def _summary(report: Report, correlation: float, lag: int) -> str:
    factor = report.real_time_factor or 0.0
    pace = "faster than it plays" if factor < 1 else "slower than it plays"
    return (
        f"{report.video_seconds:.2f} s of video, {report.frames} frames of {report.width}x{report.height} "
        f"in {len(report.chunks)} chunks\n"
        f"made by {report.model} on {report.device} in {report.dtype}, seed {report.seed}\n"
        f"real-time factor {factor:.2f} ({pace}); first frame after {report.seconds['first_chunk']:.1f} s, "
        f"loading included\n"
        f"mouth opening follows the loudness of the sound with correlation {correlation:.2f} at a lag of "
        f"{lag:+d} frames\n"
    )
