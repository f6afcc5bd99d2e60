"""How much faster several ranks of one thread each are than one: VAE decode and encode, transformer step.

    python benchmarks/parallel_speed.py                 # everything, two ranks
    python benchmarks/parallel_speed.py --case vae-fp32 --repeats 3 --out speed.json

Both forms run in turn within one run, so that a change of the machine's mood meets both. While one rank works alone
the others wait without computing. Each figure is the median over the repeats; the first round warms up. "cpu" is the
speed-up in processor time: one rank's against the busiest of several, exchange included. Waiting does not count there,
neither for each other nor for other programs, so it is a bound from above that a busy machine does not spoil.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from livetalk_core.models.attention import LocalShard
from livetalk_core.parallel.groups import Groups, open_groups

Form = Callable[[], Any]
CASES = ("vae-fp32", "vae-bf16", "encode-fp32", "encode-bf16", "transformer-fp32", "transformer-bf16")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
LATENTS = (1, 16, 9, 24, 16)


def vae_forms(groups: Groups, dtype: torch.dtype, encode: bool) -> tuple[Form, Form]:
    """One rank and all ranks: a VAE of width 32 on 24x16 latent cells, 9 latent frames (2 when encoding)."""
    from diffusers import AutoencoderKLWan

    from livetalk_core.models.vae import WanVideoVAE
    from livetalk_core.parallel.vae import ParallelVAE

    torch.manual_seed(0)
    library = AutoencoderKLWan(base_dim=32, dim_mult=[1, 2, 4, 4], num_res_blocks=2)
    one = WanVideoVAE(library.to(dtype).eval().requires_grad_(False))
    several = ParallelVAE(one, groups)
    if encode:
        video = (torch.rand(1, 3, 5, LATENTS[3] * 8, LATENTS[4] * 8) * 2 - 1).to(dtype)
        return (lambda: one.encode(video)), (lambda: several.encode(video))
    latents = torch.randn(LATENTS).to(dtype)
    return (lambda: one.decode(latents)), (lambda: several.decode(latents))


def transformer_forms(groups: Groups, dtype: torch.dtype) -> tuple[Form, Form]:
    """One rank and all ranks: one step of 8 layers of width 512 on 2,016 tokens."""
    from livetalk_core.models.transformer import LiveTalkTransformer3DModel
    from livetalk_core.parallel.plan import make_plan
    from livetalk_core.parallel.sequence import SequenceParallel

    frames, height, width = 9, 28, 32
    torch.manual_seed(0)
    model = LiveTalkTransformer3DModel(
        text_len=32, dim=512, ffn_dim=2048, freq_dim=64, text_dim=64, num_heads=8, num_layers=8, intermediate_dim=64,
        output_dim=64, context_tokens=8, audio_layers=2, audio_channels=32, clip_dim=64,
    ).to(dtype).eval().requires_grad_(False)  # fmt: skip
    latents, y = torch.randn(1, 16, frames, height, width), torch.randn(1, 20, frames, height, width)
    stream = model.encode_stream(torch.randn(1, 32, 64), torch.randn(1, 17, 64))
    audio = model.encode_audio(torch.randn(1, 1 + 4 * (frames - 1), 5, 2, 32))
    level = torch.tensor([700.0])
    plan = make_plan(groups.world, 8, frames * height * width // 4, (height, width))
    shards = (LocalShard(), SequenceParallel(groups, plan.ulysses, plan.ring))

    def form(shard: Any) -> Any:
        model.use_sequence(shard)
        return model(latents, y, level, stream, audio)

    return (lambda: form(shards[0])), (lambda: form(shards[1]))


@torch.no_grad()
def measure(groups: Groups, case: str, repeats: int) -> dict[str, Any]:
    """Seconds of both forms in turn, and how far their results are apart."""
    what, name = case.split("-")
    if what == "transformer":
        one, several = transformer_forms(groups, DTYPES[name])
    else:
        one, several = vae_forms(groups, DTYPES[name], what == "encode")
    alone: list[float] = []
    together: list[float] = []
    work: list[float] = []
    difference = 0.0
    for turn in range(repeats + 1):
        groups.barrier()
        started, busy = time.perf_counter(), time.process_time()
        expected = one() if groups.rank == 0 else None
        single, busy_alone = time.perf_counter() - started, time.process_time() - busy
        groups.barrier()
        started, busy = time.perf_counter(), time.process_time()
        result = several()
        busiest = groups.all_gather(torch.tensor([time.process_time() - busy])).max()
        shared = time.perf_counter() - started
        if expected is not None:
            difference = max(difference, float((result.float() - expected.float()).abs().max()))
        if turn:
            alone.append(single)
            together.append(shared)
            work.append(busy_alone / float(busiest))
    ratios = [a / b for a, b in zip(alone, together, strict=True)]
    return {
        "case": case,
        "one_rank_s": statistics.median(alone),
        "all_ranks_s": statistics.median(together),
        "speedup": statistics.median(ratios),
        "speedup_best": max(ratios),
        "speedup_cpu": statistics.median(work),
        "largest_difference": difference,
        "repeats": repeats,
    }


def run_rank(rank: int, world: int, cases: list[str], repeats: int, folder: Path) -> None:
    """One process of the world; rank 0 writes the results."""
    torch.set_num_threads(1)
    with open_groups(rank, world, folder / "rendezvous", timeout=1800) as groups:
        results = [measure(groups, case, repeats) for case in cases]
    if rank == 0:
        (folder / "results.json").write_text(json.dumps(results))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=CASES, help="may be given several times; all if left out")
    parser.add_argument("--world", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = options.case or list(CASES)
    if options.rank is not None:
        run_rank(options.rank, options.world, cases, options.repeats, options.folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*sys.argv[1:], "--folder", folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        ranks = [
            subprocess.Popen([sys.executable, __file__, *arguments, "--rank", str(rank)], env=environment)
            for rank in range(options.world)
        ]
        try:
            codes = [process.wait() for process in ranks]
        finally:
            for process in ranks:
                process.kill()
        if any(codes):
            sys.exit(f"A rank failed: exit codes {codes}.")
        results = json.loads(Path(folder, "results.json").read_text())
    report = {
        "world": options.world,
        "threads_per_rank": 1,
        "torch": torch.__version__,
        "load_average": os.getloadavg(),
        "results": results,
    }
    several = f"{options.world} ranks s"
    print(f"{'case':18}{'1 rank s':>10}{several:>11}{'speed-up':>10}{'best':>7}{'cpu':>7}{'max diff':>10}")
    for row in results:
        print(
            f"{row['case']:18}{row['one_rank_s']:10.3f}{row['all_ranks_s']:11.3f}{row['speedup']:10.2f}"
            f"{row['speedup_best']:7.2f}{row['speedup_cpu']:7.2f}{row['largest_difference']:10.1e}"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
