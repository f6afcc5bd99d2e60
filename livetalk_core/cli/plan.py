"""`livetalk plan`: who computes what on several ranks, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ..errors import ConfigError
from .console import guarded, print_json, stdout
from .options import Json, Size, Steps, option
from .parsing import model_name, parse_size

if TYPE_CHECKING:
    from ..parallel.report import PlanReport

_MODEL_HELP = "'14b' (the published dimensions, no files needed), 'embedded' or a model folder."
_GPU_HELP = "Card to predict the time of a chunk for, such as H800 or 'RTX 4090'."
_NUMBER_BYTES = {"bf16": 2, "fp32": 4}
_MANY = 16


@guarded
def plan(
    world: Annotated[int, option("Number of ranks: processes, one per GPU.", None, True, "--world", "--world-size")],
    size: Size = None,
    gpu: Annotated[str | None, option(_GPU_HELP)] = None,
    model: Annotated[str, option(_MODEL_HELP)] = "14b",
    ulysses: Annotated[int | None, option("Ulysses degree.", default="gcd(world, heads)")] = None,
    ring: Annotated[int | None, option("Ring degree.", default="world / ulysses")] = None,
    steps: Steps = None,
    dtype: Annotated[str, option("Number format: bf16 or fp32.")] = "bf16",
    as_json: Json = False,
) -> None:
    """Show how a number of ranks would share a chunk: tokens, tiles, work, traffic, memory, predicted time."""
    from ..parallel.report import PlanRequest, plan_report

    if dtype not in _NUMBER_BYTES:
        raise ConfigError(f"--dtype is {dtype!r}.", f"Choose {' or '.join(_NUMBER_BYTES)}.", setting="dtype")
    request = PlanRequest(
        world=world,
        model=model_name(model),
        size=parse_size(size),
        gpu=gpu,
        ulysses=ulysses,
        ring=ring,
        steps=steps,
        number_bytes=_NUMBER_BYTES[dtype],
    )
    report = plan_report(request)
    if as_json:
        print_json(report.plain())
    else:
        _show(report, dtype)


def _show(report: PlanReport, dtype: str) -> None:
    console = stdout()
    plan_, cost = report.plan, report.cost
    width, height = report.size
    frames = report.geometry.latent_frames
    console.print(
        f"[bold]{report.shape.name}[/] {width}x{height}, {plan_.tokens:,} tokens on {plan_.world} ranks: "
        f"ulysses {plan_.ulysses} x ring {plan_.ring} ({report.shape.transformer.heads} heads), VAE tiles {plan_.grid}"
    )
    console.print(_rank_table(report))
    parts = cost.decode.flops + cost.encode.flops
    lines = {
        "work": f"{_si(cost.step_flops)}FLOP per step x {cost.steps} = {_si(cost.step_flops * cost.steps)}FLOP, of "
        f"which attention {cost.attention_flops / cost.step_flops:.0%}; VAE {_si(parts)}FLOP ({frames} latent frames)",
        "sent per rank": f"ulysses {_si(cost.ulysses_bytes)}B, ring {_si(cost.ring_bytes)}B, gather "
        f"{_si(cost.gather_bytes)}B per step; VAE {_si(cost.decode.sent + cost.encode.sent)}B per chunk",
        "memory per rank": f"about {_si(cost.memory_bytes)}B in {dtype}, weights {_si(cost.weight_bytes)}B of it "
        "(every rank holds them all)",
    }
    if report.prediction is not None and report.gpu is not None:
        lines |= _prediction(report)
    for label, text in lines.items():
        console.print(f"{label:16} {text}")


def _rank_table(report: PlanReport) -> Any:
    from rich.table import Table

    table = Table("rank", "tokens", "padding", "tile (latent rows x columns)", box=None, pad_edge=False)
    rows = report.plain()["ranks"]
    for row in rows[:_MANY]:
        start, stop = row["tokens"]
        tile = row["tile"]
        place = "none" if tile is None else f"{tile[0]}..{tile[1]} x {tile[2]}..{tile[3]}"
        tokens = f"{start}..{stop}" if stop > start else "none"
        table.add_row(str(row["rank"]), tokens, str(row["padding"]), place)
    if len(rows) > _MANY:
        table.add_row("...", f"{len(rows) - _MANY} more", "", "")
    return table


def _prediction(report: PlanReport) -> dict[str, str]:
    from ..parallel.cost import UTILISATION

    prediction, gpu = report.prediction, report.gpu
    assert prediction is not None and gpu is not None
    verdict = "real time" if prediction.expected <= report.chunk_seconds else "not real time"
    lines = {
        f"on {gpu.name}": f"at peak {prediction.roofline:.3f} s per chunk (transformer {prediction.transformer:.3f}, "
        f"VAE {prediction.vae:.3f}, links {prediction.links:.3f}); computing at {UTILISATION:.0%} of peak "
        f"{prediction.expected:.3f} s for {report.chunk_seconds:.2f} s of video: {verdict}",
    }
    if report.too_large:
        lines["does not fit"] = f"[red]{report.too_large}[/]"
    return lines


def _si(value: float) -> str:
    """Three digits and a prefix: 468 T, 2.17 G."""
    for prefix, scale in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g} "
