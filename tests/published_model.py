"""A random model in the layout of the published folder, small or of several hundred megabytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
)

from livetalk_core.loading.layout import AUDIO_FOLDER, IMAGE_FILES, TEXT_FILES, TOKENIZER_FOLDER, VAE_FILES
from livetalk_core.loading.save import export_published
from livetalk_core.models.published import IMAGE_ENCODER, TEXT_ENCODER, VAE
from livetalk_core.models.state_dict_adapter import Component, published_adapter
from livetalk_core.models.transformer import LiveTalkTransformer3DModel

TRANSFORMER_KEYS = (
    "model_type",
    "text_len",
    "in_dim",
    "dim",
    "ffn_dim",
    "freq_dim",
    "out_dim",
    "num_heads",
    "num_layers",
    "eps",
    "text_dim",
    "intermediate_dim",
    "output_dim",
    "context_tokens",
)


@dataclass(frozen=True)
class PublishedSize:
    """Dimensions that differ from the published ones."""

    transformer: Mapping[str, int]
    text: Mapping[str, int]
    image: Mapping[str, int]
    audio: Mapping[str, Any]
    vae: Mapping[str, int] = field(default_factory=lambda: {"base_dim": 8})
    shard_bytes: int = 100_000


SMALL = PublishedSize(
    transformer={
        "text_len": 8,
        "dim": 48,
        "ffn_dim": 96,
        "freq_dim": 32,
        "text_dim": 16,
        "num_heads": 2,
        "num_layers": 2,
        "intermediate_dim": 16,
        "output_dim": 24,
        "context_tokens": 4,
        "audio_layers": 2,
        "audio_channels": 16,
        "clip_dim": 32,
    },
    text={"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4},
    image={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "image_size": 112, "patch_size": 28},
    audio={
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "conv_dim": [16] * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    },
)

LARGE = PublishedSize(
    transformer={
        "text_len": 64,
        "dim": 1024,
        "ffn_dim": 2816,
        "text_dim": 512,
        "num_heads": 8,
        "num_layers": 12,
        "intermediate_dim": 128,
        "audio_layers": 4,
        "audio_channels": 256,
        "clip_dim": 640,
    },
    text={"vocab_size": 20_000, "d_model": 512, "d_kv": 64, "d_ff": 1280, "num_layers": 6, "num_heads": 8},
    image={"hidden_size": 640, "intermediate_size": 2560, "num_hidden_layers": 8},
    audio={
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "conv_dim": [128] * 7,
    },
    vae={"base_dim": 48},
    shard_bytes=100_000_000,
)


def published_modules(size: PublishedSize, seed: int = 0) -> dict[str, nn.Module]:
    """The five modules with random weights, in the formats the published files have."""
    torch.manual_seed(seed)
    modules = {
        "transformer": LiveTalkTransformer3DModel(**size.transformer).bfloat16(),
        "vae": AutoencoderKLWan(**{**VAE, **size.vae}),
        "image_encoder": CLIPVisionModel(CLIPVisionConfig(**{**IMAGE_ENCODER, **size.image})).half(),
        "audio_encoder": Wav2Vec2Model(Wav2Vec2Config(**size.audio)),
        "text_encoder": UMT5EncoderModel(UMT5Config(**{**TEXT_ENCODER, **size.text})).bfloat16(),
    }
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def published_state(component: Component, module: nn.Module) -> dict[str, Tensor]:
    """Weights under their published names."""
    state = module.state_dict()
    return dict(published_adapter(component, set(state)).to_published(state.items()))


def write_published_model(
    folder: Path, size: PublishedSize = SMALL, seed: int = 0, *, pickled: bool = True
) -> dict[str, nn.Module]:
    """Write a published folder, with its .pth and .bin pickles or as if converted; return the modules in it."""
    modules = published_modules(size, seed)
    export_published(modules["transformer"], folder, max_shard_bytes=size.shard_bytes)
    config = json.loads((folder / "config.json").read_text())
    # The published configuration lacks the widths of the encoders.
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in TRANSFORMER_KEYS}))
    save = _save_pickle if pickled else _save_safetensors
    save(published_state("text_encoder", modules["text_encoder"]), folder / TEXT_FILES[0])
    image = {f"visual.{key}": t for key, t in published_state("image_encoder", modules["image_encoder"]).items()}
    image |= {"visual.head": torch.zeros(32, 8), "textual.token_embedding.weight": torch.zeros(5, 8)}
    save({**image, "log_scale": torch.zeros([])}, folder / IMAGE_FILES[0])
    save(published_state("vae", modules["vae"]), folder / VAE_FILES[0])
    write_audio_folder(folder / AUDIO_FOLDER, modules["audio_encoder"], pickled)
    write_tokenizer(folder / TOKENIZER_FOLDER)
    return modules


def _save_pickle(state: Mapping[str, Tensor], stem: Path) -> None:
    torch.save(dict(state), stem.with_name(f"{stem.name}.pth"))


def _save_safetensors(state: Mapping[str, Tensor], stem: Path) -> None:
    save_file(
        {key: tensor.contiguous() for key, tensor in state.items()},
        stem.with_name(f"{stem.name}.safetensors"),
    )


def write_audio_folder(folder: Path, audio_encoder: Any, pickled: bool) -> None:
    """A wav2vec2 folder as published: old spelling of the weight norm, heads of pre-training included."""
    folder.mkdir()
    state = published_state("audio_encoder", audio_encoder)
    state["quantizer.codevectors"] = torch.zeros(1, 4, 2)
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(audio_encoder.config.to_json_string())
    (folder / "preprocessor_config.json").write_text('{"do_normalize": true, "sampling_rate": 16000}')


def write_tokenizer(folder: Path) -> None:
    """A tokenizer of single letters."""
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((chr(97 + i), -1.0) for i in range(26))]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(Unigram(letters, unk_id=2)),
        **special,
    )
    tokenizer.save_pretrained(str(folder))
