"""What to train and how: frozen settings, one file per recipe; free of the model libraries."""

from __future__ import annotations

from .named import RECIPES, find_recipe
from .settings import (
    OptimizerConfig,
    RolloutConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    TrainingRecipe,
    change_recipe,
)

__all__ = [
    "RECIPES",
    "OptimizerConfig",
    "RolloutConfig",
    "RunConfig",
    "Stage1Config",
    "Stage2Config",
    "TrainingRecipe",
    "change_recipe",
    "find_recipe",
]
