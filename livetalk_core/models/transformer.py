"""The LiveTalk diffusion transformer: noisy latents, reference, text, image and speech in, velocity out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from ..errors import ConfigError
from .attention import LocalShard, SequenceShard, frame_segments
from .audio_projection import AudioProjection
from .layers import Float32Linear, LayerNorm, PatchEmbedding
from .rope import rope_table
from .transformer_blocks import (
    AudioKeysValues,
    BlockConfig,
    Head,
    Layout,
    LiveTalkBlock,
    StreamKeysValues,
    StreamTokens,
)

_MAX_TABLES = 16
"""Rotation tables that are kept: more than a training has buckets, so few that sizes of all kinds do not add up."""


@dataclass(frozen=True)
class StreamConditioning:
    """Every block's keys and values of the text and the reference image, computed once per stream.

    Deferred conditioning holds the tokens instead, and every block makes its keys and values in the forward pass:
    training needs their gradients, and blocks with sharded weights can compute nothing outside of it.
    """

    blocks: tuple[StreamKeysValues | StreamTokens, ...]


@dataclass(frozen=True)
class AudioConditioning:
    """Every block's keys and values of the speech, computed once per chunk; deferred: the tokens themselves."""

    blocks: tuple[AudioKeysValues | Tensor, ...]

    @property
    def frames(self) -> int:
        """Latent frames that the speech covers."""
        first = self.blocks[0]
        return first.shape[1] if isinstance(first, Tensor) else first.key.shape[1]


class ImageEmbedding(nn.Module):
    """Image-encoder tokens -> tokens of the transformer's width."""

    def __init__(self, clip_dim: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            LayerNorm(clip_dim, eps=1e-5), nn.Linear(clip_dim, clip_dim), nn.GELU(), nn.Linear(clip_dim, dim),
            LayerNorm(dim, eps=1e-5),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """``[B, n, clip_dim]`` -> ``[B, n, dim]``."""
        result: Tensor = self.proj(features)
        return result


class LiveTalkTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """Audio-driven image-to-video diffusion transformer (published `WanModel` of `multitalk_model`).

    Parameter names are those of the published checkpoints, so a published state dict loads unchanged. The
    configuration has the published keys plus three that the published class fixes: `audio_layers` and
    `audio_channels` (speech features per frame) and `clip_dim` (image feature width). `weight_init` is
    accepted for compatibility; fresh weights come from `init_weights`.

    Time embedding, modulation and head run in float32; norms run in float32 and cast back; the residual
    stream has the parameters' dtype, also under autocast.

    Raises:
        ConfigError: for dimensions that do not fit together or a variant this model is not.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["LiveTalkBlock"]
    _repeated_blocks: ClassVar[list[str]] = ["LiveTalkBlock"]
    _keep_in_fp32_modules: ClassVar[list[str]] = ["time_embedding", "time_projection", "modulation", "head"]
    _skip_layerwise_casting_patterns: ClassVar[list[str]] = [
        "patch_embedding", "norm", "img_emb.proj.0", "img_emb.proj.4",
    ]  # fmt: skip

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        model_type: str = "i2v",
        patch_size: Sequence[int] = (1, 2, 2),
        text_len: int = 512,
        in_dim: int = 36,
        dim: int = 5120,
        ffn_dim: int = 13824,
        freq_dim: int = 256,
        text_dim: int = 4096,
        out_dim: int = 16,
        num_heads: int = 40,
        num_layers: int = 40,
        window_size: Sequence[int] = (-1, -1),
        qk_norm: bool = True,
        cross_attn_norm: bool = True,
        eps: float = 1e-6,
        audio_window: int = 5,
        intermediate_dim: int = 512,
        output_dim: int = 768,
        context_tokens: int = 32,
        vae_scale: int = 4,
        norm_input_visual: bool = True,
        norm_output_audio: bool = True,
        weight_init: bool = True,
        audio_layers: int = 12,
        audio_channels: int = 768,
        clip_dim: int = 1280,
    ) -> None:
        super().__init__()
        _check_config(self.config)
        self.patch_size = (patch_size[0], patch_size[1], patch_size[2])
        self.patch_embedding = PatchEmbedding(in_dim, dim, self.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(Float32Linear(freq_dim, dim), nn.SiLU(), Float32Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), Float32Linear(dim, 6 * dim))
        block = BlockConfig(
            dim, ffn_dim, num_heads, qk_norm, cross_attn_norm, eps, output_dim, norm_input_visual
        )
        self.blocks = nn.ModuleList(LiveTalkBlock(block) for _ in range(num_layers))
        self.head = Head(dim, out_dim * self.patch_size[0] * self.patch_size[1] * self.patch_size[2], eps)
        self.img_emb = ImageEmbedding(clip_dim, dim)
        self.audio_proj = AudioProjection(
            window=audio_window, vae_scale=vae_scale, layers=audio_layers, channels=audio_channels,
            intermediate_dim=intermediate_dim, output_dim=output_dim, context_tokens=context_tokens,
            norm_output=norm_output_audio,
        )  # fmt: skip
        self.gradient_checkpointing = False
        self._shard: SequenceShard = LocalShard()
        self._rope_cache: dict[tuple[int, int, int, str], tuple[Tensor, Tensor]] = {}

    @property
    def residual_dtype(self) -> torch.dtype:
        """Dtype of the token stream: that of the patch embedding, which no caster or quantiser touches."""
        return self.patch_embedding.weight.dtype

    def use_sequence(self, shard: SequenceShard) -> None:
        """Run the blocks on this rank's share of the tokens from now on; `LocalShard()` means all of them."""
        self._shard = shard
        self._rope_cache.clear()

    def encode_stream(self, context: Tensor, clip_features: Tensor, *, defer: bool = False) -> StreamConditioning:
        """Text and image keys and values of all blocks.

        Args:
            context: Text encoder states ``[B, <=text_len, text_dim]``; missing rows are zeros, and all
                text_len rows are attended, as in the published model.
            clip_features: Image encoder states ``[B, n, clip_dim]``.
            defer: Leave keys and values to the forward pass.

        Raises:
            ConfigError: if the text is longer than text_len.
        """
        text_len = self.config.text_len
        if context.shape[1] > text_len:
            raise ConfigError(
                f"The text context has {context.shape[1]} rows, the model takes at most {text_len}.",
                hint="Shorten the prompt.",
            )
        padded = nn.functional.pad(context.to(self.residual_dtype), (0, 0, 0, text_len - context.shape[1]))
        text, image = self.text_embedding(padded), self.img_emb(clip_features.to(self.residual_dtype))
        if defer:
            return StreamConditioning((StreamTokens(text, image),) * len(self.blocks))
        return StreamConditioning(tuple(block.cross_attn.keys_values(text, image) for block in self._blocks))

    def encode_audio(self, windows: Tensor, *, defer: bool = False) -> AudioConditioning:
        """Audio keys and values of all blocks from feature windows ``[B, F, window, layers, channels]``.

        F video frames give T = 1 + (F-1)/vae_scale latent frames. Raises ConfigError if they do not divide.
        With `defer` keys and values are left to the forward pass.
        """
        scale = self.config.vae_scale
        if windows.ndim != 5 or windows.shape[1] % scale != 1 % scale:
            raise ConfigError(
                f"Audio windows of shape {tuple(windows.shape)} do not fill latent frames.",
                hint=f"Give [B, F, window, layers, channels] with F = 1 + {scale}*n.",
            )
        tokens = self.audio_proj(windows.to(self.residual_dtype))
        if defer:
            return AudioConditioning((tokens,) * len(self.blocks))
        return AudioConditioning(tuple(block.audio_cross_attn.keys_values(tokens) for block in self._blocks))

    def forward(
        self,
        latents: Tensor,
        y: Tensor,
        timestep: Tensor,
        stream: StreamConditioning,
        audio: AudioConditioning,
    ) -> Tensor:
        """Velocity of the noisy latents.

        Args:
            latents: ``[B, out_dim, T, h, w]`` noisy normalised latents.
            y: ``[B, in_dim - out_dim, T, h, w]`` mask and reference latents.
            timestep: ``[B]`` (or ``[1]``) noise level, 0..1000.
            stream: Result of `encode_stream`, batch B or 1.
            audio: Result of `encode_audio` for the same T, batch B or 1.

        Returns:
            Velocity (noise - clean), float32 ``[B, out_dim, T, h, w]``.

        Raises:
            ConfigError: for inputs whose shapes do not fit the model or each other.
        """
        self._check_inputs(latents, y, audio)
        shard, dtype = self._shard, self.residual_dtype
        embedded = self.patch_embedding(torch.cat([latents, y], dim=1).to(dtype))
        frames, rows, columns = embedded.shape[2:]
        length = frames * rows * columns
        x = shard.split(embedded.flatten(2).transpose(1, 2)).to(dtype)
        start, _ = shard.token_range(length)
        cos, sin = self._rotations(frames, rows, columns, x.device)
        layout = Layout(cos, sin, frame_segments(start, x.shape[1], rows * columns, frames))
        time = self.time_embedding(timestep_embedding(timestep, self.config.freq_dim))
        e0 = self.time_projection(time).unflatten(1, (6, -1))
        for block, stream_kv, audio_kv in zip(self._blocks, stream.blocks, audio.blocks, strict=True):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x, e0, stream_kv, audio_kv, layout, shard)
            else:
                x = block(x, e0, stream_kv, audio_kv, layout, shard)
        patches = shard.gather(self.head(x, time))[:, :length]
        return self._unpatchify(patches, frames, rows, columns)

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def init_weights(self, seed: int) -> None:
        """Fresh weights for training from scratch, a function of ``seed`` alone.

        Xavier for matrices, zeros for biases, ones for norms; the head and both cross attentions' outputs
        start at zero, so that the untrained model predicts zero and conditioning is learnt from there.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("modulation"):
                noise = torch.randn(parameter.shape, generator=generator) / self.config.dim**0.5
                parameter.copy_(noise)
            elif name.endswith(("head.head.weight", "cross_attn.o.weight", "audio_cross_attn.proj.weight")):
                parameter.zero_()
            elif parameter.ndim >= 2:
                matrix = torch.empty(parameter.shape[0], parameter[0].numel())
                nn.init.xavier_uniform_(matrix, generator=generator)
                parameter.copy_(matrix.view(parameter.shape))
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)

    @property
    def _blocks(self) -> list[Any]:
        """The blocks; untyped, because compiled or quantised blocks stand in their place."""
        return list(self.blocks)

    def _rotations(self, frames: int, rows: int, columns: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """This rank's rotation tables, cached per grid."""
        if torch.compiler.is_compiling():
            # A compiled graph reuses its memory: a tensor made in it must not outlive it.
            return self._make_rotations(frames, rows, columns, device)
        key = (frames, rows, columns, str(device))
        if key not in self._rope_cache:
            if len(self._rope_cache) >= _MAX_TABLES:
                del self._rope_cache[next(iter(self._rope_cache))]
            # A table first made by inference must serve training too.
            with torch.inference_mode(False):
                self._rope_cache[key] = self._make_rotations(frames, rows, columns, device)
        return self._rope_cache[key]

    def _make_rotations(
        self, frames: int, rows: int, columns: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        head_dim = self.config.dim // self.config.num_heads
        cos, sin = rope_table(frames, rows, columns, head_dim, device)
        return self._shard.split(cos.unsqueeze(0)).squeeze(0), self._shard.split(sin.unsqueeze(0)).squeeze(0)

    def _check_inputs(self, latents: Tensor, y: Tensor, audio: AudioConditioning) -> None:
        """Refuse shapes that would fail deep inside or, worse, be computed with the wrong speech."""
        if latents.shape[1] + y.shape[1] != self.config.in_dim or latents.shape[2:] != y.shape[2:]:
            raise ConfigError(
                f"Latents {tuple(latents.shape)} and conditioning {tuple(y.shape)} do not make "
                f"{self.config.in_dim} channels of one size."
            )
        if any(size % patch for size, patch in zip(latents.shape[2:], self.patch_size, strict=True)):
            raise ConfigError(
                f"Latents {tuple(latents.shape)} do not divide into patches of {self.patch_size}.",
                hint="Use a width and height that are multiples of 16.",
            )
        frames = latents.shape[2] // self.patch_size[0]
        if audio.blocks and audio.frames != frames:
            raise ConfigError(f"The speech covers {audio.frames} latent frames, the latents have {frames}.")

    def _unpatchify(self, patches: Tensor, frames: int, rows: int, columns: int) -> Tensor:
        """Head vectors ``[B, L, p*q*r*C]``, channel last inside -> float32 ``[B, C, T, h, w]``."""
        p, q, r = self.patch_size
        grid = patches.float().view(patches.shape[0], frames, rows, columns, p, q, r, -1)
        video = grid.permute(0, 7, 1, 4, 2, 5, 3, 6)
        return video.flatten(6, 7).flatten(4, 5).flatten(2, 3)


def timestep_embedding(timestep: Tensor, channels: int) -> Tensor:
    """Sinusoids of ``timestep [B]``, cosines first, computed in float64 -> float32 ``[B, channels]``."""
    # Apple's GPU back end has no float64.
    dtype = torch.float32 if timestep.device.type == "mps" else torch.float64
    half = channels // 2
    exponents = torch.arange(half, dtype=dtype, device=timestep.device) / half
    angles = torch.outer(timestep.to(dtype), 10000.0**-exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def _check_config(config: Any) -> None:
    """Refuse variants and dimensions that the forward pass does not compute."""
    patch, window = tuple(config.patch_size), tuple(config.window_size)
    problems = {
        f"model_type is {config.model_type!r}, only 'i2v' is known": config.model_type != "i2v",
        f"patch_size {patch} needs three positive numbers": len(patch) != 3 or min(patch) < 1,
        f"window_size {window} is local, only (-1, -1) is known": window != (-1, -1),
        f"dim {config.dim} gives {config.num_heads} heads no even width": config.dim % (2 * config.num_heads),
        f"freq_dim {config.freq_dim} is odd": config.freq_dim % 2,
        f"audio_window {config.audio_window} is even": config.audio_window % 2 == 0,
        f"vae_scale {config.vae_scale} is below 2": config.vae_scale < 2,
    }
    for problem, present in problems.items():
        if present:
            raise ConfigError(f"Bad transformer configuration: {problem}.", hint="Check its config.json.")
