"""The convolutions, norms and attention of the Wan VAE in the form that is fastest on a device.

Activations are [B, C, T, H, W] in channels-last memory, so that a frame is one contiguous plane. Every function
computes the stock layer's result up to the order of summation (spec: VAE; costs: docs/adr/001).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlaneOperations(Protocol):
    """The operations that need more than one pixel of a plane: what a spatial split has to replace."""

    def pad(self, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        """Surround every plane of x [B,C,T,H,W] by the neighbours' pixels, zeros at the picture's edge."""
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Softmax attention over all positions of a plane; q, k, v are [B*T, 1, H*W, C]."""
        ...


class WholePlane:
    """One rank holds the whole picture."""

    def pad(self, x: Tensor, left: int, right: int, top: int, bottom: int) -> Tensor:
        """See `PlaneOperations`."""
        return F.pad(x, (left, right, top, bottom))

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `PlaneOperations`."""
        return F.scaled_dot_product_attention(q, k, v)


@dataclass
class CausalHistory:
    """Last input frames of every temporal layer, so that a clip can be coded in groups of frames.

    A fresh history codes the first frame as an image, as the published code does at the start of each call.
    """

    frames: dict[int, Tensor] = field(default_factory=dict)

    def extend(self, layer: nn.Module, x: Tensor, keep: int) -> Tensor:
        """Prepend what is remembered for `layer` to x and remember its last `keep` frames."""
        past = self.frames.get(id(layer))
        joined = x if past is None else torch.cat([past, x], dim=2)
        self.frames[id(layer)] = joined[:, :, -keep:]
        return joined


@dataclass(frozen=True)
class ConvolutionForm:
    """How a causal 3-D convolution is computed: as one conv3d or as the sum of its temporal taps by conv2d."""

    taps: bool


def choose_form(device: torch.device, dtype: torch.dtype) -> ConvolutionForm:
    """On a CPU in float32 conv3d falls into slow paths that conv2d taps avoid; elsewhere conv3d is best."""
    return ConvolutionForm(taps=device.type == "cpu" and dtype == torch.float32)


def channels_last(module: nn.Module) -> None:
    """Lay out the weights of all convolutions for channels-last planes."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


def rms_norm(layer: Any, x: Tensor) -> Tensor:
    """x / max(|x| over channels, 1e-12) * sqrt(C) * gamma, the length taken in float32."""
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32).clamp_min(1e-12)
    gamma = layer.gamma.reshape(1, -1, *([1] * (x.dim() - 2)))
    normed: Tensor = x * (x.shape[1] ** 0.5 / length).to(x.dtype) * gamma.to(x.dtype)
    return normed


def _planes(x: Tensor) -> Tensor:
    """[B,C,T,H,W] -> [B*T,C,H,W]; a view when B is 1 and the memory is channels-last."""
    return x.transpose(1, 2).flatten(0, 1)


def _unplanes(x: Tensor, batch: int) -> Tensor:
    planes: Tensor = x.unflatten(0, (batch, -1))
    return planes.transpose(1, 2)


def planar_conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 2-D convolution of every frame; x is already padded."""
    batch = x.shape[0]
    out = F.conv2d(_planes(x), layer.weight, layer.bias, layer.stride)
    return _unplanes(out, batch)


def _tap_sum(layer: nn.Conv3d, x: Tensor, frames: int) -> Tensor:
    """Sum over temporal taps of conv2d; x holds `frames` new frames behind at most two remembered ones."""
    batch, past = x.shape[0], x.shape[2] - frames
    out: Tensor | None = None
    for tap in reversed(range(layer.kernel_size[0])):
        # Frame t of the output sees input t + past - (2 - tap); frames before the first are zeros and are skipped.
        offset = past - (layer.kernel_size[0] - 1 - tap)
        skip = max(0, -offset)
        if skip >= frames:
            continue
        source = x[:, :, offset + skip : offset + frames]
        bias = layer.bias if out is None else None
        part = _unplanes(F.conv2d(_planes(source), layer.weight[:, :, tap], bias), batch)
        if out is None:
            out = part
        elif torch.is_grad_enabled():
            out = out + F.pad(part, (0, 0, 0, 0, skip, 0))
        else:
            out[:, :, skip:] += part
    assert out is not None
    return out


def causal_conv(
    layer: nn.Conv3d, x: Tensor, history: CausalHistory, plane: PlaneOperations, form: ConvolutionForm
) -> Tensor:
    """A causal 3-D convolution with zero padding in the plane: frame t sees frames t-2, t-1, t."""
    frames = x.shape[2]
    border = layer.kernel_size[1] // 2
    if layer.kernel_size[0] > 1:
        x = history.extend(layer, x, keep=layer.kernel_size[0] - 1)
    if border:
        x = plane.pad(x, border, border, border, border)
    if form.taps:
        return _tap_sum(layer, x, frames)
    missing = layer.kernel_size[0] - 1 - (x.shape[2] - frames)
    if missing and frames == 1 and missing == layer.kernel_size[0] - 1:
        # An image: only the last tap sees data.
        weight = layer.weight[:, :, -1:].contiguous(memory_format=torch.channels_last_3d)
        return F.conv3d(x, weight, layer.bias)
    return F.conv3d(F.pad(x, (0, 0, 0, 0, missing, 0)), layer.weight, layer.bias)


def plane_attention(block: Any, x: Tensor, plane: PlaneOperations) -> Tensor:
    """Single-head attention over the positions of each frame, with residual."""
    batch, channels = x.shape[:2]
    height, width = x.shape[-2:]
    normed = rms_norm(block.norm, x)
    rows = _planes(normed).permute(0, 2, 3, 1).reshape(-1, 1, height * width, channels)
    qkv = F.linear(rows, block.to_qkv.weight.flatten(1), block.to_qkv.bias)
    out = plane.attention(*qkv.chunk(3, dim=-1))
    out = F.linear(out, block.proj.weight.flatten(1), block.proj.bias)
    out = out.view(-1, height, width, channels).permute(0, 3, 1, 2)
    result: Tensor = _unplanes(out, batch) + x
    return result
