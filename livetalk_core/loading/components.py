"""One plan per module: configuration (read, or told by the weights' shapes), class and key map."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from ..errors import CheckpointError
from ..models.library_names import image_prefix
from ..models.published import IMAGE_ENCODER, TEXT_ENCODER, VAE
from ..models.state_dict_adapter import Component, StateDictAdapter, adapter_for
from ..models.transformer import LiveTalkTransformer3DModel
from .assemble import AssemblyPlan, library_shapes, plan_assembly
from .layout import ComponentFiles
from .manifest import read_model_config
from .meta_module import build_on_meta
from .model_files import checkpoint_error
from .safetensors_stream import WeightSet

logger = logging.getLogger("livetalk")

_TRANSFORMER_KEYS = frozenset(inspect.signature(LiveTalkTransformer3DModel.__init__).parameters) - {"self"}
_VAE_KEYS = frozenset(inspect.signature(AutoencoderKLWan.__init__).parameters) - {"self"}
_CODE_KEYS = ("architectures", "torch_dtype", "dtype", "auto_map", "transformers_version")

Shapes = Mapping[str, tuple[int, ...]]


def plan_transformer(files: ComponentFiles, dtype: torch.dtype, absent: Mapping[str, int]) -> AssemblyPlan:
    """The denoiser.

    Args:
        files: Its configuration and shards.
        dtype: Number format wanted.
        absent: Values for settings the published configuration lacks (widths of its encoders).
    """
    weights = _open(files)
    config = {**absent, **_class_config(files, _TRANSFORMER_KEYS)}
    build = partial(LiveTalkTransformer3DModel, **config)
    return _plan("transformer", files, weights, build, StateDictAdapter(others=True), dtype)


def plan_vae(files: ComponentFiles, dtype: torch.dtype) -> AssemblyPlan:
    """The video autoencoder."""
    weights = _open(files)
    adapter = _adapter("vae", weights)
    if files.config is not None:
        config = _class_config(files, _VAE_KEYS)
    else:
        config = {**VAE, **_inferred("VAE", weights, adapter, vae_config)}
    return _plan("VAE", files, weights, partial(AutoencoderKLWan, **config), adapter, dtype)


def plan_image_encoder(files: ComponentFiles, dtype: torch.dtype) -> AssemblyPlan:
    """The CLIP vision tower."""
    return _plan_encoder(
        "image_encoder", files, dtype, IMAGE_ENCODER, image_config,
        lambda config: CLIPVisionModel(CLIPVisionConfig(**config)),
    )  # fmt: skip


def plan_text_encoder(files: ComponentFiles, dtype: torch.dtype) -> AssemblyPlan:
    """The umT5 encoder."""
    return _plan_encoder(
        "text_encoder", files, dtype, TEXT_ENCODER, text_config, lambda config: UMT5EncoderModel(UMT5Config(**config))
    )


def plan_audio_encoder(files: ComponentFiles, dtype: torch.dtype) -> AssemblyPlan:
    """The wav2vec2 encoder."""
    assert files.config is not None
    weights = _open(files)
    config = _library_config(files.config)
    adapter = _adapter("audio_encoder", weights)
    return _plan("audio encoder", files, weights, lambda: Wav2Vec2Model(Wav2Vec2Config(**config)), adapter, dtype)


def _plan_encoder(
    component: Component,
    files: ComponentFiles,
    dtype: torch.dtype,
    published: Mapping[str, Any],
    infer: Callable[[Shapes], dict[str, Any]],
    build: Callable[[dict[str, Any]], Any],
) -> AssemblyPlan:
    """An encoder from its config.json, or of the sizes its weights show and the published rest."""
    name = component.replace("_", " ")
    weights = _open(files)
    adapter = _adapter(component, weights)
    if files.config is not None:
        config = _library_config(files.config)
    else:
        config = {**published, **_inferred(name, weights, adapter, infer)}
    return _plan(name, files, weights, lambda: build(config), adapter, dtype)


def vae_config(shapes: Shapes) -> dict[str, Any]:
    """What the shapes of its weights (library names) tell about a Wan 2.1 VAE."""
    return {"base_dim": shapes["encoder.conv_in.weight"][0], "z_dim": shapes["post_quant_conv.weight"][0]}


def image_config(shapes: Shapes) -> dict[str, Any]:
    """What the shapes of its weights (library names) tell about a CLIP vision tower."""
    embeddings, layers = f"{image_prefix()}embeddings.", f"{image_prefix()}encoder.layers."
    positions, hidden = shapes[f"{embeddings}position_embedding.weight"]
    patch = shapes[f"{embeddings}patch_embedding.weight"][-1]
    return {
        "hidden_size": hidden,
        "intermediate_size": shapes[f"{layers}0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, layers),
        "image_size": math.isqrt(positions - 1) * patch,
        "patch_size": patch,
    }


def text_config(shapes: Shapes) -> dict[str, Any]:
    """What the shapes of its weights (library names) tell about a umT5 encoder."""
    # The embedding has two tied names; a file may use either.
    embedding = "shared.weight" if "shared.weight" in shapes else "encoder.embed_tokens.weight"
    vocabulary, width = shapes[embedding]
    first = "encoder.block.0.layer."
    buckets, heads = shapes[f"{first}0.SelfAttention.relative_attention_bias.weight"]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "d_kv": shapes[f"{first}0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes[f"{first}1.DenseReluDense.wi_0.weight"][0],
        "num_layers": _count(shapes, "encoder.block."),
        "num_heads": heads,
        "relative_attention_num_buckets": buckets,
    }


def _count(shapes: Shapes, prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)})


def _open(files: ComponentFiles) -> WeightSet:
    source = files.weights[0] if len(files.weights) == 1 else files.weights[0].parent
    return WeightSet.open(files.weights, source)


def _adapter(component: Component, weights: WeightSet) -> StateDictAdapter:
    try:
        return adapter_for(component, set(weights))
    except CheckpointError as error:
        raise CheckpointError(
            f"{weights.source}: {error.message}", error.hint, **error.details, file=str(weights.source)
        ) from error


def _class_config(files: ComponentFiles, known: AbstractSet[str]) -> dict[str, Any]:
    """The settings in config.json that the class has; others are named in the log."""
    assert files.config is not None
    config = {key: value for key, value in read_model_config(files.config).items() if not key.startswith("_")}
    unknown = sorted(config.keys() - known)
    if unknown:
        logger.warning("%s: unknown settings are not used: %s", files.config, ", ".join(unknown))
    return {key: value for key, value in config.items() if key in known}


def _library_config(path: Path) -> dict[str, Any]:
    """A transformers configuration without the keys that only select code or number formats."""
    config = read_model_config(path)
    return {key: value for key, value in config.items() if key not in _CODE_KEYS and not key.startswith("_")}


def _inferred(
    component: str, weights: WeightSet, adapter: StateDictAdapter, infer: Callable[[Shapes], dict[str, Any]]
) -> dict[str, Any]:
    try:
        return infer(library_shapes(weights, adapter))
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise checkpoint_error(
            weights.source,
            f"does not look like a {component}: its tensors do not give {error}",
            "Check that the file is complete and belongs to this component.",
        ) from error


def _plan(
    component: str,
    files: ComponentFiles,
    weights: WeightSet,
    build: Callable[[], Any],
    adapter: StateDictAdapter,
    dtype: torch.dtype,
) -> AssemblyPlan:
    module = build_on_meta(component, files.config or weights.source, build)
    return plan_assembly(component, module, weights, adapter, dtype)
