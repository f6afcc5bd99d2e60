"""The convolutions, norms and attention of the Wan VAE in the form that is fastest on a device.

Activations are [B, C, T, H, W] in channels-last memory, so that a frame is one contiguous plane. Every function
computes the stock layer's result up to the order of summation (costs: docs/adr/001).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlaneOperations(Protocol):
    """The operations that need more than one pixel of a plane: what a spatial split has to replace."""

    def pad(self, x: Tensor, left: int, right: int, top: int, bottom: int, past: Tensor | None = None) -> Tensor:
        """Surround every plane of x [B,C,T,H,W] by the neighbours' pixels, zeros at the picture's edge.

        Args:
            x: This rank's part.
            left, right, top, bottom: Pixels to add.
            past: Planes that are surrounded already, to stand before those of x.
        """
        ...

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Softmax attention over all positions of a plane; q, k, v are [B*T, 1, H*W, C]."""
        ...


class WholePlane:
    """One rank holds the whole picture."""

    def pad(self, x: Tensor, left: int, right: int, top: int, bottom: int, past: Tensor | None = None) -> Tensor:
        """See `PlaneOperations`."""
        height, width = x.shape[-2:]
        whole, fresh = room_around(x, left, right, top, bottom, past)
        for axis, before, length in ((3, top, height), (4, left, width)):
            fresh.narrow(axis, 0, before).zero_()
            fresh.narrow(axis, before + length, fresh.shape[axis] - before - length).zero_()
        fresh[..., top : top + height, left : left + width] = x
        return whole

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See `PlaneOperations`."""
        return row_attention(q, k, v)


def row_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention that rounds every row of q [..., L, C] alike, however many there are.

    A CPU's matrix product takes one to three rows left over in another order than the others. A tile's rows would
    differ from the whole plane's in the last bit, which grows in every norm behind it; so the rows are made up to four.
    """
    rows = q.shape[-2]
    if rows % 4 == 0:
        return F.scaled_dot_product_attention(q, k, v)
    made_up = F.pad(q, (0, 0, 0, -rows % 4))
    # Contiguous, as where nothing was made up: the projection behind it, too, rounds by its input's layout.
    return F.scaled_dot_product_attention(made_up, k, v)[..., :rows, :].contiguous()


def room_around(
    x: Tensor, left: int, right: int, top: int, bottom: int, past: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Channels-last memory for the past and for x with its surroundings: the whole, and the part for x."""
    batch, channels, frames, height, width = x.shape
    earlier = 0 if past is None else past.shape[2]
    size = (batch, channels, earlier + frames, height + top + bottom, width + left + right)
    whole = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    if past is not None:
        whole[:, :, :earlier] = past
    return whole, whole[:, :, earlier:]


@dataclass
class CausalHistory:
    """One walk along a video: the last input frames of every temporal layer, so that it can be coded in groups.

    A fresh history codes the first frame as an image, as the published code does at the start of each call.

    Attributes:
        plane: How operations across a plane are done during this walk.
        frames: By layer, as the layer sees them: surrounded by their borders.
        tail: How often the last frame of what is being coded stands there again, without being computed again. A layer
            that looks back makes some of these frames differ; behind them its output repeats like its input.
    """

    plane: PlaneOperations
    frames: dict[int, Tensor] = field(default_factory=dict)
    tail: int = 0

    def unfold(self, x: Tensor, count: int) -> Tensor:
        """x with up to `count` of the frames that repeat its last one."""
        count = min(count, self.tail)
        self.tail -= count
        return repeat_last(x, count)

    def before(self, layer: nn.Module) -> Tensor | None:
        """What the layer saw last."""
        return self.frames.get(id(layer))

    def remember(self, layer: nn.Module, x: Tensor) -> None:
        """Keep these frames for the layer's next call; a copy, so that the memory around them can go."""
        self.frames[id(layer)] = x.clone()


def repeat_last(x: Tensor, count: int) -> Tensor:
    """x [B,C,T,H,W] with its last frame `count` more times."""
    return torch.cat([x, *[x[:, :, -1:]] * count], dim=2) if count else x


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


def activated(layer: Any, x: Tensor) -> Tensor:
    """SiLU of the norm."""
    return F.silu(rms_norm(layer, x), inplace=not torch.is_grad_enabled())


def rms_norm(layer: Any, x: Tensor) -> Tensor:
    """x / max(|x| over channels, 1e-12) * sqrt(C) * gamma, the length taken in float32 or better."""
    precise = torch.promote_types(x.dtype, torch.float32)
    length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=precise).clamp_min(1e-12)
    gamma = layer.gamma.reshape(1, -1, *([1] * (x.dim() - 2)))
    normed: Tensor = x * (x.shape[1] ** 0.5 / length).to(x.dtype)
    return normed * gamma.to(x.dtype) if torch.is_grad_enabled() else normed.mul_(gamma.to(x.dtype))


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


def causal_conv(layer: nn.Conv3d, x: Tensor, history: CausalHistory, form: ConvolutionForm) -> Tensor:
    """A causal 3-D convolution with zero padding in the plane: frame t sees frames t-2, t-1, t."""
    depth, border = layer.kernel_size[0] - 1, layer.kernel_size[1] // 2
    x = history.unfold(x, depth)
    frames = x.shape[2]
    past = history.before(layer) if depth else None
    known = 0 if past is None else past.shape[2]
    # One conv3d wants zeros for the frames before the first; of an image only the last tap sees data.
    image = frames == 1 and known == 0
    if known < depth and not form.taps and not image:
        past = _behind_zeros(past, x, depth, border)
    if border or past is not None:
        x = history.plane.pad(x, border, border, border, border, past)
    if depth:
        history.remember(layer, x[:, :, -min(depth, known + frames) :])
    if form.taps:
        return _tap_sum(layer, x, frames)
    weight = layer.weight
    if depth and image:
        weight = weight[:, :, -1:].contiguous(memory_format=torch.channels_last_3d)
    return F.conv3d(x, weight, layer.bias)


def _behind_zeros(past: Tensor | None, x: Tensor, depth: int, border: int) -> Tensor:
    """`depth` frames: zeros in place of those that are not known; x says how large they are without their border."""
    known = 0 if past is None else past.shape[2]
    height, width = (side + 2 * border for side in x.shape[-2:])
    zeros = x.new_zeros(1).expand(*x.shape[:2], depth - known, height, width)
    return zeros if past is None else torch.cat([zeros, past], dim=2)


def upsampled(x: Tensor) -> Tensor:
    """Every pixel twice in both directions, of the border once: [B,C,T,H+2,W+2] -> [B,C,T,2H+2,2W+2]."""
    batch, channels, frames, height, width = x.shape
    size = (batch, channels, frames, 2 * height - 2, 2 * width - 2)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    for row in (0, 1):
        for column in (0, 1):
            out[..., row::2, column::2] = x[..., row : height - 1 + row, column : width - 1 + column]
    return out


def interleaved(x: Tensor) -> Tensor:
    """The two channel halves become consecutive frames: [B,2C,T,H,W] -> [B,C,2T,H,W]."""
    batch, channels, frames, height, width = x.shape
    size = (batch, channels // 2, 2 * frames, height, width)
    out = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)
    for half, part in enumerate(x.chunk(2, dim=1)):
        out[:, :, half::2] = part
    return out


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
