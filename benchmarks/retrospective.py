"""Does re-anchoring hold a stream whose motion frames are disturbed at every chunk?

    python benchmarks/retrospective.py run --runs runs
    python benchmarks/retrospective.py draw --runs runs --out docs/retrospective

The embedded model speaks a looped sound: undisturbed, disturbed, and disturbed with re-anchoring. The disturbance:
before every encoding of motion frames, re-anchored ones included, all pixels get a colour cast, a light that falls from
left to right, and noise. It stands for what a weaker model, an unusual picture or a low precision add from chunk to
chunk. Only this script disturbs: the engine runs as it is, on a model whose VAE does so.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from livetalk_core.config import CorrectionConfig
from livetalk_core.engine import Engine
from livetalk_core.loading import load_model
from livetalk_core.media import contact_sheet, curves_plot, open_sound, write_atomic
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.models.vae import WanVideoVAE

ASSETS = Path(__file__).resolve().parent.parent / "livetalk_core" / "assets"
SHOWN = (1, 50, 100, 200)
KINDS = ("undisturbed", "disturbed", "re-anchored")


class DisturbedVAE(WanVideoVAE):
    """A VAE that disturbs every video of `frames` frames before it encodes it.

    Args:
        vae: The VAE; its weights are used in place.
        frames: Number of motion frames.
        strength: Of cast and light, in steps of 255.
        noise: Deviation of the noise, in steps of 255.
        seed: Of the noise.
    """

    def __init__(self, vae: WanVideoVAE, frames: int, strength: float, noise: float, seed: int) -> None:
        super().__init__(vae.vae)
        self._frames, self._strength, self._noise = frames, strength, noise
        self._generator = torch.Generator().manual_seed(seed)

    def encode(self, video: Tensor) -> Tensor:
        """As the VAE, after the disturbance."""
        return super().encode(self._disturb(video) if video.shape[2] == self._frames else video)

    def _disturb(self, video: Tensor) -> Tensor:
        cast = torch.tensor([1.0, -0.25, -1.0]).view(1, 3, 1, 1, 1)
        light = torch.linspace(1, -1, video.shape[-1])
        noise = torch.randn(video.shape, generator=self._generator) * self._noise
        return (video + ((cast + light) * self._strength + noise) / 127.5).clamp(-1, 1).to(video.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("run", help="make streams and measure them")
    make.add_argument("--runs", type=Path, required=True, help="folder for what is measured")
    make.add_argument("--chunks", type=int, default=200)
    make.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    make.add_argument("--color-strength", type=float, default=0.0)
    make.add_argument("--lookback", type=int, default=1)
    make.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS)
    make.add_argument("--strength", type=float, default=3.0, help="of cast and light, in steps of 255")
    make.add_argument("--noise", type=float, default=8.0, help="deviation, in steps of 255")
    draw = commands.add_parser("draw", help="table, plots and contact sheet of all runs")
    draw.add_argument("--runs", type=Path, required=True)
    draw.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.command == "run":
        options.runs.mkdir(parents=True, exist_ok=True)
        run_all(options)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        draw_all(options.runs, options.out)


class Run:
    """One stream and what was measured of it so far.

    Args:
        bundle: The model, undisturbed.
        kind: One of `KINDS`.
        seed: Of the stream and of the disturbance.
        options: Of the command line.
    """

    def __init__(self, bundle: ModelBundle, kind: str, seed: int, options: argparse.Namespace) -> None:
        self._folder, lookback = options.runs, options.lookback if kind == KINDS[2] else 0
        correction = CorrectionConfig(color_strength=options.color_strength, lookback=lookback)
        config = bundle.defaults.stream(seed=seed, correction=correction)
        if kind != KINDS[0]:
            vae = DisturbedVAE(bundle.vae, config.geometry.motion_frames, options.strength, options.noise, seed)
            bundle = replace(bundle, vae=vae)
        self._stream = Engine(bundle).open_stream(config, Image.open(ASSETS / "portrait.png").convert("RGB"))
        self._name = f"{kind}_color{options.color_strength:g}_seed{seed}"
        self._facts = {"kind": kind, "color_strength": options.color_strength, "lookback": lookback, "seed": seed}
        self._rows: list[dict[str, float]] = []
        self._last: NDArray[np.uint8] | None = None

    def step(self, samples: NDArray[np.float32]) -> None:
        """Make a chunk and write what is known."""
        chunk = self._stream.step(samples)
        row = {name: round(value, 4) for name, value in chunk.stats.items()}
        reanchor = chunk.timings.get("reanchor", 0.0) / sum(chunk.timings.values())
        self._rows.append({**row, "jump": _jump(self._last, chunk.frames), "reanchor_share": round(reanchor, 3)})
        self._last = chunk.frames[-1]
        write_atomic(self._folder / f"{self._name}.json", json.dumps({**self._facts, "chunks": self._rows}))
        if len(self._rows) in SHOWN:
            middle = chunk.frames[len(chunk.frames) // 2]
            Image.fromarray(middle).save(self._folder / f"{self._name}_{len(self._rows)}.png")


def run_all(options: argparse.Namespace) -> None:
    """All streams in step, so that an interrupted run compares as many chunks of each."""
    bundle = load_model(None)
    geometry = bundle.defaults.geometry
    runs = [Run(bundle, kind, seed, options) for seed in options.seeds for kind in options.kinds]
    with open_sound(str(ASSETS / "demo.wav"), geometry.sample_rate) as sound:
        samples = np.concatenate(list(sound))
    for index in range(options.chunks):
        places = index * geometry.slice_samples + np.arange(geometry.slice_samples)
        for run in runs:
            run.step(samples[places % len(samples)])


def draw_all(runs: Path, out: Path) -> None:
    """A table on standard output; plots and sheet into `out`."""
    found = [json.loads(path.read_text()) for path in sorted(runs.glob("*.json"))]
    # An unfinished run is compared over as many chunks as all streams have.
    count = min(len(record["chunks"]) for record in found)
    groups: dict[tuple[float, str], list[list[dict[str, float]]]] = {}
    for record in found:
        groups.setdefault((record["color_strength"], record["kind"]), []).append(record["chunks"][:count])
    print("| colour match | stream | seeds, chunks | drift, first 5 | last 20 | worst | colour, last 20 | sharpness "
          "| similarity | re-anchored | jump at borders |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for strength in sorted({strength for strength, _ in groups}):
        kinds = [kind for kind in KINDS if (strength, kind) in groups]
        for kind in kinds:
            print(_line(strength, kind, groups[strength, kind]))
        for name, label in (("drift", "drift"), ("drift_color", "colour distance")):
            curves = {
                kind: (
                    np.arange(1, count + 1),
                    np.mean([[row[name] for row in rows] for rows in groups[strength, kind]], axis=0),
                )
                for kind in kinds
            }
            title = f"{label.capitalize()} of every chunk, mean over the seeds, colour match {strength:g}"
            curves_plot(curves, out / f"{name}_{strength:g}.png", title, "chunk", label)
        _sheet(runs, out, strength, kinds)


def _line(strength: float, kind: str, streams: list[list[dict[str, float]]]) -> str:
    """A row of the table: means over the streams."""

    def mean(name: str, rows: slice) -> float:
        return float(np.nanmean([row[name] for stream in streams for row in stream[rows]]))

    begin, end, after = slice(0, 5), slice(-20, None), slice(1, None)
    worst = max(row["drift"] for stream in streams for row in stream)
    return (
        f"| {strength:g} | {kind} | {len(streams)} × {len(streams[0])} | {mean('drift', begin):.2f} "
        f"| {mean('drift', end):.2f} | {worst:.2f} | {mean('drift_color', end):.2f} "
        f"| {mean('drift_sharpness', end):.2f} | {mean('drift_similarity', end):.3f} "
        f"| {mean('reanchored', slice(None)):.0%} | {mean('jump', after):.2f} |"
    )


def _sheet(runs: Path, out: Path, strength: float, kinds: list[str]) -> None:
    """One row for each kind of stream, one column for each chunk shown."""
    pictures = []
    for kind in kinds:
        for chunk in SHOWN:
            paths = sorted(runs.glob(f"{kind}_color{strength:g}_seed*_{chunk}.png"))
            pictures += [(chunk * 1.12, Image.open(path)) for path in paths[:1]]
    if pictures:
        columns = len(pictures) // len(kinds)
        contact_sheet(pictures, out / f"frames_{strength:g}.png", columns, f"{', '.join(kinds)} (rows)")


def _jump(last: NDArray[np.uint8] | None, frames: NDArray[np.uint8]) -> float:
    """Change from the last frame shown to the first of a chunk, over the median change inside the chunk."""
    if last is None:
        return float("nan")
    change = np.abs(np.diff(np.stack([last, *frames]).astype(np.int16), axis=0)).mean(axis=(1, 2, 3))
    return float(change[0] / max(np.median(change[1:]), 1e-6))


if __name__ == "__main__":
    main()
