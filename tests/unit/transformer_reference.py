"""A second, plain form of the transformer: one tensor at a time, float64, nothing precomputed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]


def _linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Tensor, eps: float, w: Weights | None = None, name: str = "") -> Tensor:
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
    return y if w is None else y * w[f"{name}.weight"] + w[f"{name}.bias"]


def _rms(w: Weights, name: str, x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * w[f"{name}.weight"]


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """``[L, C]`` tensors."""
    outputs = []
    for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
        outputs.append(torch.softmax(qh @ kh.T / math.sqrt(qh.shape[-1]), -1) @ vh)
    return torch.cat(outputs, -1)


def _rotate(x: Tensor, heads: int, grid: tuple[int, int, int]) -> Tensor:
    pairs = torch.view_as_complex(x.unflatten(-1, (heads, -1, 2)).contiguous())
    c = pairs.shape[-1]
    angles = torch.zeros(x.shape[0], c, dtype=torch.float64)
    for token in range(x.shape[0]):
        position = (token // (grid[1] * grid[2]), token // grid[2] % grid[1], token % grid[2])
        counts = (c - 2 * (c // 3), c // 3, c // 3)
        angles[token] = torch.cat(
            [p * 10000.0 ** (-torch.arange(n).double() / n) for p, n in zip(position, counts, strict=True)]
        )
    rotated = pairs * torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
    return torch.view_as_real(rotated).flatten(1)


def audio_tokens(w: Weights, windows: Tensor, tokens: int) -> Tensor:
    """``[F, 5, layers, channels]`` -> ``[T, tokens, C]``."""
    frames = [F.relu(_linear(w, "audio_proj.proj1", windows[0].flatten()))]
    for i in range(1, windows.shape[0], 4):
        a, b, c, d = windows[i : i + 4]
        entries = torch.cat([a[:3], b[2:3], c[2:3], d[2:]])
        frames.append(F.relu(_linear(w, "audio_proj.proj1_vf", entries.flatten())))
    hidden = F.relu(_linear(w, "audio_proj.proj2", torch.stack(frames)))
    out = _linear(w, "audio_proj.proj3", hidden).unflatten(-1, (tokens, -1))
    return _norm(out, 1e-5, w, "audio_proj.norm")


def velocity(
    weights: Weights, heads: int, text_len: int, tokens: int,
    latents: Tensor, y: Tensor, t: float, context: Tensor, clip: Tensor, windows: Tensor
) -> Tensor:  # fmt: skip
    """One sample: latents ``[16, T, h, w]``, context ``[l, text]``, clip ``[n, clip]``."""
    w = {k: v.double() for k, v in weights.items()}
    x = F.conv3d(
        torch.cat([latents, y]).double()[None],
        w["patch_embedding.weight"],
        w["patch_embedding.bias"],
        (1, 2, 2),
    )[0]
    grid = (x.shape[1], x.shape[2], x.shape[3])
    x = x.flatten(1).T
    half = w["time_embedding.0.weight"].shape[1] // 2
    angles = t * 10000.0 ** (-torch.arange(half).double() / half)
    e = _linear(w, "time_embedding.0", torch.cat([angles.cos(), angles.sin()]))
    e = _linear(w, "time_embedding.2", F.silu(e))
    e0 = _linear(w, "time_projection.1", F.silu(e)).unflatten(0, (6, -1))
    text = F.pad(context.double(), (0, 0, 0, text_len - context.shape[0]))
    text = _linear(w, "text_embedding.2", F.gelu(_linear(w, "text_embedding.0", text), approximate="tanh"))
    image = _linear(w, "img_emb.proj.1", _norm(clip.double(), 1e-5, w, "img_emb.proj.0"))
    image = _norm(_linear(w, "img_emb.proj.3", F.gelu(image)), 1e-5, w, "img_emb.proj.4")
    audio = audio_tokens(w, windows.double(), tokens)
    for i in range(1 + max(int(k.split(".")[1]) for k in w if k.startswith("blocks."))):
        x = _block(w, f"blocks.{i}", x, e0, text, image, audio, heads, grid)
    m = w["head.modulation"][0] + e
    out = _linear(w, "head.head", _norm(x, 1e-6) * (1 + m[1]) + m[0])
    video = torch.empty(out.shape[-1] // 4, grid[0], 2 * grid[1], 2 * grid[2], dtype=torch.float64)
    patches = out.unflatten(0, grid)
    for row in range(2):
        for column in range(2):
            channels = patches[..., (2 * row + column) * video.shape[0] :][..., : video.shape[0]]
            video[:, :, row::2, column::2] = channels.permute(3, 0, 1, 2)
    return video


def _block(
    w: Weights, name: str, x: Tensor, e0: Tensor, text: Tensor, image: Tensor, audio: Tensor,
    heads: int, grid: tuple[int, int, int],
) -> Tensor:  # fmt: skip
    m = w[f"{name}.modulation"][0] + e0
    a = f"{name}.self_attn"
    h = _norm(x, 1e-6) * (1 + m[1]) + m[0]
    q = _rotate(_rms(w, f"{a}.norm_q", _linear(w, f"{a}.q", h)), heads, grid)
    k = _rotate(_rms(w, f"{a}.norm_k", _linear(w, f"{a}.k", h)), heads, grid)
    x = x + _linear(w, f"{a}.o", _attend(q, k, _linear(w, f"{a}.v", h), heads)) * m[2]
    a = f"{name}.cross_attn"
    q = _rms(w, f"{a}.norm_q", _linear(w, f"{a}.q", _norm(x, 1e-6, w, f"{name}.norm3")))
    both = _attend(q, _rms(w, f"{a}.norm_k", _linear(w, f"{a}.k", text)), _linear(w, f"{a}.v", text), heads)
    both = both + _attend(
        q, _rms(w, f"{a}.norm_k_img", _linear(w, f"{a}.k_img", image)), _linear(w, f"{a}.v_img", image), heads
    )
    x = x + _linear(w, f"{a}.o", both)
    a = f"{name}.audio_cross_attn"
    q = _linear(w, f"{a}.q_linear", _norm(x, 1e-6, w, f"{name}.norm_x"))
    frames = []
    for frame, frame_q in enumerate(q.unflatten(0, (grid[0], -1))):
        key, value = _linear(w, f"{a}.kv_linear", audio[frame]).chunk(2, -1)
        frames.append(_attend(frame_q, key, value, heads))
    x = x + _linear(w, f"{a}.proj", torch.cat(frames))
    h = _norm(x, 1e-6) * (1 + m[4]) + m[3]
    return x + _linear(w, f"{name}.ffn.2", F.gelu(_linear(w, f"{name}.ffn.0", h), approximate="tanh")) * m[5]
