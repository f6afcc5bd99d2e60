"""The dimensions of a model that decide what a chunk costs; no weights, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TransformerShape:
    """Dimensions of the transformer; the defaults are the published ones."""

    dim: int = 5120
    ffn_dim: int = 13824
    heads: int = 40
    layers: int = 40
    text_tokens: int = 512
    image_tokens: int = 257
    audio_tokens: int = 32
    audio_dim: int = 768
    in_channels: int = 36
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)

    @classmethod
    def from_config(cls, config: Mapping[str, Any], image_tokens: int = 257) -> TransformerShape:
        """Read a transformer's config.json; keys it lacks have the published values."""
        names = {
            "dim": "dim", "ffn_dim": "ffn_dim", "heads": "num_heads", "layers": "num_layers",
            "text_tokens": "text_len", "audio_tokens": "context_tokens", "audio_dim": "output_dim",
            "in_channels": "in_dim", "out_channels": "out_dim",
        }  # fmt: skip
        values = {field: int(config[key]) for field, key in names.items() if key in config}
        patch = tuple(config.get("patch_size", cls.patch))
        return cls(**values, image_tokens=image_tokens, patch=(patch[0], patch[1], patch[2]))

    @property
    def parameters(self) -> int:
        """Weights of all blocks, which is all but a few per cent."""
        dim = self.dim
        attention = 4 * dim * dim
        cross = 6 * dim * dim
        audio = 2 * dim * dim + 2 * self.audio_dim * dim
        return self.layers * (attention + cross + audio + 2 * dim * self.ffn_dim)


@dataclass(frozen=True)
class VAEShape:
    """Dimensions of a Wan VAE; the defaults are the published ones."""

    base_dim: int = 96
    z_dim: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    resnets: int = 2
    temporal: tuple[bool, ...] = (False, True, True)
    channels: int = 3
    patch: int = 1

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VAEShape:
        """Read an `AutoencoderKLWan`'s config.json; keys it lacks have the published values."""
        return cls(
            base_dim=config.get("base_dim", cls.base_dim),
            z_dim=config.get("z_dim", cls.z_dim),
            multipliers=tuple(config.get("dim_mult", cls.multipliers)),
            resnets=config.get("num_res_blocks", cls.resnets),
            temporal=tuple(config.get("temperal_downsample", cls.temporal)),
            channels=config.get("in_channels", cls.channels),
            patch=config.get("patch_size") or cls.patch,
        )

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent cell along a side."""
        stride: int = self.patch * 2 ** (len(self.multipliers) - 1)
        return stride


@dataclass(frozen=True)
class ModelShape:
    """What a chunk of a model costs depends on this.

    Attributes:
        name: For people.
        weights_elsewhere: Bytes of the text, image and audio encoders, which every rank holds too.
        text_weights: Those of the text encoder among them, which take the chosen number format; stored in 16 bits.
    """

    name: str = "14b"
    transformer: TransformerShape = TransformerShape()
    vae: VAEShape = VAEShape()
    weights_elsewhere: float = 13.5e9
    text_weights: float = 11.4e9
