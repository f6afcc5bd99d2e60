"""What stage 1 of the embedded model trains: transformer and image encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ...models.encoders import clip_pixels
from ...models.transformer import LiveTalkTransformer3DModel

TRANSFORMER_CONFIG: dict[str, Any] = {
    "dim": 192,
    "num_heads": 3,
    "num_layers": 6,
    "ffn_dim": 512,
    "freq_dim": 64,
    "text_len": 4,
    "text_dim": 64,
    "clip_dim": 64,
    "audio_layers": 3,
    "audio_channels": 96,
    "intermediate_dim": 160,
    "output_dim": 96,
    "context_tokens": 4,
}
IMAGE_CONFIG: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 64,
    "patch_size": 16,
    "hidden_act": "gelu",
}


class Student(nn.Module):
    """Transformer and image encoder, trained together."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.image = CLIPVisionModel(CLIPVisionConfig(**IMAGE_CONFIG))
        self.transformer = LiveTalkTransformer3DModel(**TRANSFORMER_CONFIG)
        self.transformer.init_weights(seed)

    def condition(self, pictures: Tensor, windows: Tensor) -> tuple[Any, Any]:
        """Stream and audio conditioning of pictures [B,3,H,W] in [-1,1] and windows [B,33,5,layers,channels]."""
        config = self.transformer.config
        size = self.image.config.image_size
        features = self.image(clip_pixels(pictures, size), output_hidden_states=True).hidden_states[-2]
        context = torch.zeros(len(pictures), config.text_len, config.text_dim)
        return self.transformer.encode_stream(context, features), self.transformer.encode_audio(windows)

    def start_from(self, folder: Path) -> None:
        """Take over the weights of the models in the folders `transformer` and `image_encoder`."""
        transformer = LiveTalkTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
        self.transformer.load_state_dict(transformer.state_dict())
        image = CLIPVisionModel.from_pretrained(folder / "image_encoder")
        self.image.load_state_dict(image.float().state_dict())

    def save(self, folder: Path) -> None:
        """Write both as library model folders `transformer` and `image_encoder`."""
        self.transformer.save_pretrained(folder / "transformer", safe_serialization=True)
        self.image.save_pretrained(folder / "image_encoder", safe_serialization=True)
