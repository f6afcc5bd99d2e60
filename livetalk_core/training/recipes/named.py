"""Recipes by name."""

from __future__ import annotations

from typing import Final, Literal

from ...errors import ConfigError
from . import paper_14b, toy, toy_64
from .settings import TrainingRecipe

Stage = Literal["stage1", "stage2"]

RECIPES: Final[dict[Stage, dict[str, TrainingRecipe]]] = {
    "stage1": {recipe.name: recipe for recipe in (paper_14b.STAGE1, toy.STAGE1, toy_64.STAGE1, toy_64.TEACHER)},
    "stage2": {recipe.name: recipe for recipe in (paper_14b.STAGE2, toy.STAGE2, toy_64.STAGE2)},
}


def find_recipe(stage: Stage, name: str) -> TrainingRecipe:
    """The recipe of a stage by name.

    Raises:
        ConfigError: there is none of that name.
    """
    recipes = RECIPES[stage]
    if name not in recipes:
        raise ConfigError(f"There is no recipe {name!r} for {stage}.", f"Known: {', '.join(recipes)}.")
    return recipes[name]
