"""Our walk over the Wan VAE against the library's own forward, alternating in one run.

    python benchmarks/vae_forms.py [--threads 1] [--repeats 4] [--dtype fp32|bf16]

Processor seconds (wall seconds times busy cores), medians; the shape is that of the conformance vectors: base 16,
33 frames of 64x96.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan

from livetalk_core.models.vae import WanVideoVAE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = torch.float32 if options.dtype == "fp32" else torch.bfloat16
    stock = AutoencoderKLWan(base_dim=16).eval().to(dtype)
    ours = WanVideoVAE(copy.deepcopy(stock)).eval()
    latents = torch.randn(1, 16, 9, 8, 12, dtype=dtype)
    video = torch.rand(1, 3, 33, 64, 96, dtype=dtype) * 2 - 1
    cases: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "decode 9 latents": (lambda: stock.decode(latents), lambda: ours.decode(latents)),
        "encode 33 frames": (lambda: stock.encode(video), lambda: ours.encode(video)),
        "encode 5 frames": (lambda: stock.encode(video[:, :, :5]), lambda: ours.encode(video[:, :, :5])),
    }
    with torch.inference_mode():
        for name, pair in cases.items():
            seconds: list[list[float]] = [[], []]
            for _ in range(options.repeats + 1):
                for times, run in zip(seconds, pair, strict=True):
                    began = time.process_time()
                    run()
                    times.append(time.process_time() - began)
            before, after = (statistics.median(times[1:]) for times in seconds)
            print(f"{name:18} library {before:.3f} s  ours {after:.3f} s  ratio {after / before:.2f}")


if __name__ == "__main__":
    main()
