"""Transformer blocks: self attention, text/image and audio cross attention, feed-forward, output head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .attention import FrameSegment, SequenceShard, frame_attention, sdpa
from .layers import Float32Linear, LayerNorm, RMSNorm
from .rope import apply_rope


class StreamKeysValues(NamedTuple):
    """One block's text and image keys and values, each ``[B, tokens, N, D]``; constant for a stream."""

    text_key: Tensor
    text_value: Tensor
    image_key: Tensor
    image_value: Tensor


class StreamTokens(NamedTuple):
    """Text and image tokens, each ``[B, tokens, dim]``, of which a block makes its own keys and values."""

    text: Tensor
    image: Tensor


class AudioKeysValues(NamedTuple):
    """One block's audio keys and values, each ``[B, T, tokens, N, D]``; constant for a chunk."""

    key: Tensor
    value: Tensor


class Layout(NamedTuple):
    """Where this rank's tokens lie: rotation tables ``[l, D/2]`` and the latent frames they belong to."""

    cos: Tensor
    sin: Tensor
    segments: tuple[FrameSegment, ...]


@dataclass(frozen=True)
class BlockConfig:
    """Dimensions shared by all blocks; names as in the published config."""

    dim: int
    ffn_dim: int
    num_heads: int
    qk_norm: bool
    cross_attn_norm: bool
    eps: float
    audio_dim: int
    norm_input_visual: bool


def _match_batch(tensor: Tensor, batch: int) -> Tensor:
    """Let conditioning of batch 1 serve a larger batch."""
    return tensor if tensor.shape[0] == batch else tensor.expand(batch, *tensor.shape[1:])


class _Attention(nn.Module):
    """The projections that both kinds of attention have."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim = config.dim
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q = RMSNorm(dim, config.eps) if config.qk_norm else nn.Identity()
        self.norm_k = RMSNorm(dim, config.eps) if config.qk_norm else nn.Identity()


class SelfAttention(_Attention):
    """Bidirectional attention over all tokens of the chunk with rotary positions."""

    def forward(self, x: Tensor, layout: Layout, shard: SequenceShard) -> Tensor:
        """``[B, l, dim]`` -> ``[B, l, dim]``."""
        heads = (self.num_heads, -1)
        value = self.v(x).unflatten(-1, heads)
        # The q,k statistics span the full width, so they are normalised before the heads are split.
        query = apply_rope(self.norm_q(self.q(x)).unflatten(-1, heads), layout.cos, layout.sin)
        key = apply_rope(self.norm_k(self.k(x)).unflatten(-1, heads), layout.cos, layout.sin)
        out = shard.attention(query.to(value.dtype), key.to(value.dtype), value)
        result: Tensor = self.o(out.flatten(2))
        return result


class CrossAttention(_Attention):
    """Attention over the text plus attention over the reference image, with shared queries and output."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__(config)
        dim = config.dim
        self.k_img, self.v_img = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm_k_img = RMSNorm(dim, config.eps) if config.qk_norm else nn.Identity()

    def keys_values(self, text: Tensor, image: Tensor) -> StreamKeysValues:
        """Text ``[B, text_len, dim]`` and image ``[B, n, dim]`` tokens -> keys and values."""
        heads = (self.num_heads, -1)
        text_value, image_value = self.v(text), self.v_img(image)
        text_key = self.norm_k(self.k(text)).to(text_value.dtype)
        image_key = self.norm_k_img(self.k_img(image)).to(image_value.dtype)
        return StreamKeysValues(
            *(t.unflatten(-1, heads) for t in (text_key, text_value, image_key, image_value))
        )

    def forward(self, x: Tensor, stream: StreamKeysValues) -> Tensor:
        """``[B, l, dim]`` -> ``[B, l, dim]``."""
        query = self.norm_q(self.q(x)).unflatten(-1, (self.num_heads, -1)).to(stream.text_value.dtype)
        text_key, text_value, image_key, image_value = (_match_batch(t, x.shape[0]) for t in stream)
        out = sdpa(query, text_key, text_value) + sdpa(query, image_key, image_value)
        result: Tensor = self.o(out.flatten(2))
        return result


class AudioCrossAttention(nn.Module):
    """Attention of each latent frame's tokens over that frame's audio tokens only."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_linear = nn.Linear(config.dim, config.dim)
        self.kv_linear = nn.Linear(config.audio_dim, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def keys_values(self, audio: Tensor) -> AudioKeysValues:
        """Audio tokens ``[B, T, tokens, audio_dim]`` -> keys and values."""
        key, value = self.kv_linear(audio).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        return AudioKeysValues(key, value)

    def forward(self, x: Tensor, audio: AudioKeysValues, segments: tuple[FrameSegment, ...]) -> Tensor:
        """``[B, l, dim]`` -> ``[B, l, dim]``."""
        query = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).to(audio.value.dtype)
        key, value = (_match_batch(t, x.shape[0]) for t in audio)
        result: Tensor = self.proj(frame_attention(query, key, value, segments).flatten(2))
        return result


class LiveTalkBlock(nn.Module):
    """One transformer block; the residual stream keeps the dtype it comes in with."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        dim, eps = config.dim, config.eps
        self.norm1 = LayerNorm(dim, eps, elementwise_affine=False)
        self.self_attn = SelfAttention(config)
        self.norm3 = LayerNorm(dim, eps) if config.cross_attn_norm else nn.Identity()
        self.cross_attn = CrossAttention(config)
        self.norm2 = LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, dim)
        )
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
        self.audio_cross_attn = AudioCrossAttention(config)
        self.norm_x = LayerNorm(dim, eps) if config.norm_input_visual else nn.Identity()

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        stream: StreamKeysValues | StreamTokens,
        audio: AudioKeysValues | Tensor,
        layout: Layout,
        shard: SequenceShard,
    ) -> Tensor:
        """Tokens ``[B, l, dim]`` and time projection, float32 ``[B, 6, dim]`` -> tokens ``[B, l, dim]``.

        Audio is given as keys and values, or as the tokens ``[B, T, tokens, audio_dim]`` they are made of.
        """
        if isinstance(stream, StreamTokens):
            stream = self.cross_attn.keys_values(stream.text, stream.image)
        if isinstance(audio, Tensor):
            audio = self.audio_cross_attn.keys_values(audio)
        e = (self.modulation.float() + time).chunk(6, dim=1)
        x = _gate(x, self.self_attn(_modulate(self.norm1(x), e[0], e[1]), layout, shard), e[2])
        x = x + self.cross_attn(self.norm3(x), stream)
        x = x + self.audio_cross_attn(self.norm_x(x), audio, layout.segments)
        return _gate(x, self.ffn(_modulate(self.norm2(x), e[3], e[4])), e[5])


class Head(nn.Module):
    """Modulated projection of every token to its patch of the output, in float32."""

    def __init__(self, dim: int, out_features: int, eps: float) -> None:
        super().__init__()
        self.norm = LayerNorm(dim, eps, elementwise_affine=False)
        self.head = Float32Linear(dim, out_features)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Tokens ``[B, l, dim]``, time embedding float32 ``[B, dim]`` -> float32 ``[B, l, out_features]``."""
        shift, scale = (self.modulation.float() + time.unsqueeze(1)).chunk(2, dim=1)
        result: Tensor = self.head(torch.addcmul(shift, self.norm(x).float(), 1 + scale))
        return result


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x * (1 + scale) + shift in float32, cast back."""
    return torch.addcmul(shift, x.float(), 1 + scale).to(x.dtype)


def _gate(x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
    """x + update * gate in float32, cast back."""
    return torch.addcmul(x.float(), update.float(), gate).to(x.dtype)
