"""`livetalk bench`: how fast a model runs on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .console import guarded, print_json, stdout
from .groups import grouped
from .options import SEED_HELP, Json, ModelOptions, RankOptions, Size, Steps, option, request_fields
from .parsing import parse_size
from .work_bar import work_bar

if TYPE_CHECKING:
    from ..diagnostics.bench import BenchResult

_MIB = 2**20


@guarded
@grouped
def bench(
    model: ModelOptions,
    ranks: RankOptions,
    size: Size = None,
    steps: Steps = None,
    chunks: Annotated[int, option("Chunks to time.")] = 8,
    warmup: Annotated[int, option("Chunks before them that do not count.")] = 2,
    seed: Annotated[int, option(SEED_HELP)] = 9999,
    out: Annotated[Path | None, option("Also write the result to this file as JSON.")] = None,
    as_json: Json = False,
) -> None:
    """Time a model: every stage, the first frame, frames per second, real-time factor and memory.

    --model random:14b has random weights in full size, to time a GPU without a checkpoint; random:tiny small ones.
    """
    import json

    from ..diagnostics.bench import BenchRequest, run_bench
    from ..media import check_writable, write_atomic

    if out is not None:
        check_writable(out)
    request = BenchRequest(
        size=parse_size(size),
        steps=steps,
        chunks=chunks,
        warmup=warmup,
        seed=seed,
        **request_fields(model, ranks, ranks.world_size),
    )
    with work_bar(quiet=as_json) as tell:
        result = run_bench(request, tell)
    if out is not None:
        write_atomic(out, json.dumps(result.plain(), indent=1) + "\n")
    if as_json:
        print_json(result.plain())
    else:
        _show(result)


def _show(result: BenchResult) -> None:
    from rich.table import Table

    console = stdout()
    compiled = ", compiled" if result.compiled else ""
    ranks = f"{result.world_size} x " if result.world_size > 1 else ""
    console.print(
        f"[bold]{result.model}[/] {result.width}x{result.height}, {result.chunk_frames} frames per chunk of which "
        f"{result.motion_frames} repeat, {result.steps} steps, {result.dtype} on {ranks}{result.device}{compiled}; "
        f"{result.chunks} chunks after {result.warmup}"
    )
    table = Table("stage", "p50 s", "p95 s", "max s", box=None, pad_edge=False)
    for name, values in result.stages.items():
        table.add_row(name, *(f"{values[key]:.3f}" for key in ("p50", "p95", "max")))
    console.print(table)
    gpu = "" if result.peak_gpu_bytes is None else f", GPU {result.peak_gpu_bytes / _MIB:.0f} MiB"
    each = " per rank" if result.world_size > 1 else ""
    machine = result.environment
    threads = machine["torch_threads"]
    lines = {
        "real-time factor": f"{result.real_time_factor:.2f} ({result.fps:.1f} frames per second)",
        "first frame": f"{result.first_frame_seconds:.2f} s cold, {result.warm_first_frame_seconds:.2f} s warm, "
        f"after {result.load_seconds:.1f} s of loading",
        "peak memory": f"{result.peak_rss_bytes / _MIB:.0f} MiB resident{each}{gpu}; {_growth(result)}",
        "machine": f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average']}, "
        f"torch {machine['libraries']['torch']} with {threads} thread{'s' if threads > 1 else ''}"
        + "".join(f", {card['name']}" for card in machine["gpus"]),
    }
    for label, text in lines.items():
        console.print(f"{label:17} {text}")


def _growth(result: BenchResult) -> str:
    growth = result.rss_growth_per_100_chunks
    if growth is None:
        return "growth shows from --chunks 100 on"
    return f"growth {growth / _MIB:+.2f} MiB per 100 chunks"
