"""Parameter names on disk against those of the installed library, where its releases differ.

Files keep the names of transformers 4, which are also those of ComfyUI's files: whoever wrote a model, and with
whatever release, it is the same format.
"""

from __future__ import annotations

from functools import cache

import torch
import transformers
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..errors import MissingDependencyError

IMAGE_TOWER = "vision_model."
"""Prefix of the names of a CLIP vision tower on disk."""


@cache
def image_prefix() -> str:
    """Prefix of the same names in a `CLIPVisionModel`: the one on disk in transformers 4, none since 5.

    Raises:
        MissingDependencyError: the installed release uses names this version does not know.
    """
    config = CLIPVisionConfig(
        hidden_size=2, intermediate_size=2, num_hidden_layers=1, num_attention_heads=1, image_size=2, patch_size=2
    )
    with torch.device("meta"):
        names = CLIPVisionModel(config).state_dict().keys()
    for prefix in (IMAGE_TOWER, ""):
        if f"{prefix}embeddings.class_embedding" in names:
            return prefix
    raise MissingDependencyError(
        f"transformers {transformers.__version__} names the weights of CLIP in a way this LiveTalk does not know.",
        "Update LiveTalk, or install the release that `livetalk doctor` asks for.",
    )


def stored_name(module: nn.Module, name: str) -> str:
    """Name on disk of a parameter or buffer of a library's module."""
    return IMAGE_TOWER + name.removeprefix(image_prefix()) if isinstance(module, CLIPVisionModel) else name
