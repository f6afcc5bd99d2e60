"""Where a model runs: on the ranks of a daemon where there are daemons, else in ComfyUI's own process."""

from __future__ import annotations

import sys

from livetalk_core.errors import ConfigError

from .recipes import ModelRecipe


def runs_in_daemon(model: ModelRecipe) -> bool:
    """Whether the model runs in processes of its own.

    They end with ComfyUI, can be interrupted anywhere and take a crash with them, so that one GPU has one, too.

    Raises:
        ConfigError: several GPUs on a system without daemons.
    """
    if sys.platform.startswith("linux"):
        return True
    if model.gpus > 1:
        raise ConfigError(
            f"{model.gpus} GPUs were asked for; several work together on Linux only, and this is {sys.platform}.",
            "Set gpus to 1.",
        )
    return False
