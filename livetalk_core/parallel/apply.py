"""A loaded model becomes one rank's part of a parallel one; the engine above it does not change."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ConfigError
from ..models.attention import AttentionFunction, LocalShard, sdpa
from ..models.bundle import ModelBundle
from .backends import Backend, make_sequence
from .groups import Groups
from .plan import ParallelPlan
from .vae import ParallelVAE


def parallelise(
    bundle: ModelBundle,
    plan: ParallelPlan,
    groups: Groups,
    backend: Backend = "auto",
    attention: AttentionFunction = sdpa,
) -> ModelBundle:
    """Spread a model over the ranks; every rank calls this with the same model and plan.

    The transformer of the given bundle is changed in place; the VAE is replaced. Afterwards every rank runs the
    same engine calls with the same inputs and has the same results. Streams of other sizes than the plan's run too:
    only the degrees are taken from it.

    Args:
        bundle: The model, loaded whole on this rank.
        plan: Degrees.
        groups: The world.
        backend: See `make_sequence`.
        attention: One-rank attention of the torch backend.

    Raises:
        ConfigError: the plan was made for another world or model.
        MissingDependencyError, ParallelError: see `make_sequence`.
    """
    config = bundle.transformer.config
    if plan.world != groups.world or plan.heads != config.num_heads:
        raise ConfigError(
            f"The plan is for {plan.world} ranks and {plan.heads} heads; there are {groups.world} ranks and "
            f"{config.num_heads} heads.",
            "Make the plan for this world and model.",
        )
    if groups.world == 1:
        bundle.transformer.use_sequence(LocalShard(attention))
        return bundle
    head_dim = config.dim // config.num_heads
    bundle.transformer.use_sequence(make_sequence(plan, groups, head_dim, bundle.dtype, backend, attention))
    return replace(bundle, vae=ParallelVAE(bundle.vae, groups))
