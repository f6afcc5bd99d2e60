"""Write models: a whole one in our own layout, or a transformer in the published layout."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from ..errors import OutputError
from ..models.bundle import ModelDefaults
from ..models.library_names import stored_name
from .atomic_files import require_space, unwritable, write_json, write_safetensors
from .layout import MANIFEST, TRANSFORMER_STEM
from .manifest import SAMPLE_RATE, Manifest

MAX_SHARD_BYTES = 5 * 1000**3

_COMMON = frozenset(
    {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "is_decoder", "tie_word_embeddings"}
)
"""Settings of text generation that transformers 4 gives to every configuration, transformers 5 to some."""


def save_model(
    folder: Path,
    *,
    transformer: Any,
    vae: Any,
    audio_encoder: Any,
    audio_normalise: bool,
    image_encoder: Any,
    text_encoder: Any | None = None,
    tokenizer: Any | None = None,
    defaults: ModelDefaults,
    name: str,
    license: str = "",
    about: str = "",
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> None:
    """Write a model folder in our own layout, whole or not at all.

    Args:
        folder: Made by this call; an existing one is replaced only with `overwrite`.
        transformer, audio_encoder, image_encoder, text_encoder: As in a `ModelBundle`.
        vae: `AutoencoderKLWan`, or the `WanVideoVAE` around one.
        audio_normalise: Whether the audio encoder expects zero mean and unit variance.
        defaults: Settings the model was trained for.
        name: Name for people.
        license: SPDX name of the weights' licence.
        about: Where the weights come from.
        dtype: Number format of floating point weights on disk; None keeps each as it is.
        max_shard_bytes: Weight files are split above this size.

    Raises:
        OutputError: the folder exists, or cannot be written.
    """
    if (text_encoder is None) != (tokenizer is None):
        raise OutputError("A text encoder and its tokenizer are saved together.", "Give both or neither.")
    modules = {
        "transformer": (transformer, TRANSFORMER_STEM),
        "vae": (getattr(vae, "vae", vae), TRANSFORMER_STEM),
        "audio_encoder": (audio_encoder, "model"),
        "image_encoder": (image_encoder, "model"),
    }
    if text_encoder is not None:
        modules["text_encoder"] = (text_encoder, "model")
    manifest = Manifest(name=name, license=license, about=about, defaults=defaults)
    with _new_folder(folder, overwrite) as temporary:
        require_space(temporary, sum(_bytes_of(module, dtype) for module, _ in modules.values()))
        for part, (module, stem) in modules.items():
            (temporary / part).mkdir()
            write_json(temporary / part / "config.json", _config_of(module))
            write_shards(temporary / part, stem, module, dtype, max_shard_bytes)
        preprocessor = {"do_normalize": audio_normalise, "sampling_rate": SAMPLE_RATE, "feature_size": 1}
        write_json(temporary / "audio_encoder" / "preprocessor_config.json", preprocessor)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(temporary / "tokenizer"))
        write_json(temporary / MANIFEST, msgspec.to_builtins(manifest))


def export_published(
    transformer: Any,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a transformer as the published folder holds it: config.json, shards and their index.

    Args:
        transformer: `LiveTalkTransformer3DModel`; its parameter names are the published ones.
        folder: Made if absent; other files in it are left alone.
        dtype: Number format on disk; None keeps each weight as it is.
        max_shard_bytes: Weight files are split above this size.

    Raises:
        OutputError: weights are there already, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if any(folder.glob(f"{TRANSFORMER_STEM}*.safetensors")):
        raise OutputError(f"{folder} holds a transformer already.", "Choose an empty folder.", file=str(folder))
    require_space(folder, _bytes_of(transformer, dtype))
    write_json(folder / "config.json", _config_of(transformer))
    write_shards(folder, TRANSFORMER_STEM, transformer, dtype, max_shard_bytes)


def write_shards(
    folder: Path,
    stem: str,
    module: nn.Module,
    dtype: torch.dtype | None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a module's weights as `stem.safetensors`, or as shards with an index above `max_shard_bytes`."""
    shards = list(_shards(_tensors_of(module), dtype, max_shard_bytes))
    if len(shards) == 1:
        write_safetensors(folder / f"{stem}.safetensors", _converted(shards[0], dtype), {"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        name = f"{stem}-{index:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(folder / name, _converted(shard, dtype), {"format": "pt"})
        weight_map.update(dict.fromkeys(shard, name))
    total = sum(_bytes(tensor, dtype) for shard in shards for tensor in shard.values())
    # The index last: without it an interrupted set of shards is recognised as incomplete.
    write_json(
        folder / f"{stem}.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The state dict under the names on disk, each tied parameter once."""
    unique: dict[int, tuple[str, Tensor]] = {}
    for name, value in module.state_dict(keep_vars=True).items():
        unique.setdefault(id(value), (stored_name(module, name), value.detach()))
    return dict(unique.values())


def _shards(tensors: Mapping[str, Tensor], dtype: torch.dtype | None, limit: int) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + _bytes(tensor, dtype) > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += _bytes(tensor, dtype)
    yield shard


def _converted(shard: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    return {name: tensor.to("cpu", _stored_dtype(tensor, dtype)) for name, tensor in shard.items()}


def _stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _bytes(tensor: Tensor, dtype: torch.dtype | None) -> int:
    return tensor.numel() * _stored_dtype(tensor, dtype).itemsize


def _bytes_of(module: nn.Module, dtype: torch.dtype | None) -> int:
    return sum(_bytes(tensor, dtype) for tensor in _tensors_of(module).values())


def _config_of(module: Any) -> dict[str, Any]:
    """The settings of the class as plain JSON values, the same whichever release of its library writes them."""
    config = module.config
    if isinstance(config, PretrainedConfig):
        common = PretrainedConfig().to_dict().keys() | _COMMON
        plain = {key: value for key, value in config.to_dict().items() if key not in common}
        plain["model_type"] = config.model_type
    else:
        plain = dict(config)
    values = {key: value for key, value in sorted(plain.items()) if not key.startswith("_")}
    result: dict[str, Any] = msgspec.json.decode(msgspec.json.encode({"_class_name": type(module).__name__, **values}))
    return result


@contextlib.contextmanager
def _new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder that becomes `folder` on success."""
    if folder.exists() and not overwrite:
        raise OutputError(
            f"{folder} exists already.", "Choose another name, or allow it to be replaced.", file=str(folder)
        )
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(6)}.part")
    old = folder.with_name(f"{temporary.name}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if folder.exists():
            folder.rename(old)
        temporary.rename(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
