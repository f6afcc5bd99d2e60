"""What coding motion frames again and again does to a picture that stands still, by size: drift without a transformer.

    python benchmarks/vae_round_trips.py --sizes 64 128 --trips 10
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from livetalk_core.loading import load_model
from livetalk_core.models.bundle import ModelBundle
from livetalk_core.retrospective import Drift, appearance, measure_drift
from livetalk_core.training.avatars.avatar import HELD_OUT_SEED, Identity, reference_frame
from livetalk_core.training.evaluate.video import as_video


def main() -> None:
    """Print drift from the picture before and after the round trips, for every size and person."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--trips", type=int, default=10)
    arguments = parser.parse_args()
    bundle = load_model(None, "cpu", "fp32")
    for size in arguments.sizes:
        for person in range(arguments.people):
            drift = round_trips(bundle, size, HELD_OUT_SEED + person, arguments.trips)
            print(f"{size}x{size}, person {person}: colour {drift.color:.1f}, sharpness {drift.sharpness:.2f}")


@torch.no_grad()
def round_trips(bundle: ModelBundle, size: int, seed: int, trips: int) -> Drift:
    """Drift of five equal frames of a person after so many times through the VAE."""
    picture = reference_frame(Identity.from_seed(seed), np.random.default_rng(seed), size)
    anchor = appearance(as_video(picture[None]))
    video = as_video(picture[None].repeat(5, axis=0))
    for _ in range(trips):
        video = bundle.vae.decode(bundle.vae.encode(video)).float()
    return measure_drift(video, anchor)


if __name__ == "__main__":
    main()
