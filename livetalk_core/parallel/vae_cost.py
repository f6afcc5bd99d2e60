"""FLOPs and exchanged bytes of the Wan VAE, counted layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from .model_shape import VAEShape
from .plan import TileGrid


@dataclass(frozen=True)
class LayerCost:
    """One convolution.

    Attributes:
        scale: Output positions per latent cell, along a side.
        frames: Frames it computes.
        inputs, outputs: Channels.
        taps: Kernel elements over time and plane.
        halo: Positions of the plane, at `scale`, that a tile needs from each neighbour.
    """

    scale: float
    frames: int
    inputs: int
    outputs: int
    taps: int
    halo: float

    def flops(self, cells: int) -> float:
        """Floating-point operations on a picture of that many latent cells."""
        return 2.0 * cells * self.scale**2 * self.frames * self.inputs * self.outputs * self.taps


@dataclass(frozen=True)
class VAECost:
    """FLOPs of one pass, of which `attention` in the middle, and bytes the busiest rank sends."""

    flops: float
    attention: float
    sent: float


def decode_cost(shape: VAEShape, latent_frames: int, grid: TileGrid, width: int = 2) -> VAECost:
    """Decoding; `width` is the bytes per number."""
    return _cost(list(_decoder(shape, latent_frames)), shape, latent_frames, grid, width)


def encode_cost(shape: VAEShape, latent_frames: int, grid: TileGrid, width: int = 2) -> VAECost:
    """Encoding as many frames as make `latent_frames`."""
    return _cost(list(_encoder(shape, latent_frames)), shape, latent_frames, grid, width)


def _cost(layers: list[LayerCost], shape: VAEShape, frames: int, grid: TileGrid, width: int) -> VAECost:
    cells = sum(grid.heights) * sum(grid.widths)
    channels = shape.base_dim * shape.multipliers[-1]
    attention = frames * (4.0 * cells**2 * channels + 8.0 * cells * channels**2)
    # Keys and values for all other ranks, borders with up to four neighbours, and the finished tile for all.
    edge = (min(grid.rows - 1, 2) * max(grid.widths)) + min(grid.columns - 1, 2) * max(grid.heights)
    halo = sum(edge * layer.scale * layer.halo * layer.frames * layer.inputs * width for layer in layers)
    keys = 2.0 * grid.largest_tile() * channels * frames * width * (grid.tiles - 1)
    last = layers[-1]
    result = grid.largest_tile() * last.scale**2 * last.frames * last.outputs * width * (grid.tiles - 1)
    return VAECost(sum(layer.flops(cells) for layer in layers) + attention, attention, halo + keys + result)


def _resnet(scale: float, frames: int, inputs: int, outputs: int) -> Iterator[LayerCost]:
    yield LayerCost(scale, frames, inputs, outputs, 27, 1)
    yield LayerCost(scale, frames, outputs, outputs, 27, 1)
    if inputs != outputs:
        yield LayerCost(scale, frames, inputs, outputs, 1, 0)


def _decoder(shape: VAEShape, frames: int) -> Iterator[LayerCost]:
    widths = [shape.base_dim * factor for factor in (shape.multipliers[-1], *reversed(shape.multipliers))]
    scale = 1.0
    yield LayerCost(scale, frames, shape.z_dim, shape.z_dim, 1, 0)
    yield LayerCost(scale, frames, shape.z_dim, widths[0], 27, 1)
    for _ in range(2):
        yield from _resnet(scale, frames, widths[0], widths[0])
    temporal = list(reversed(shape.temporal))
    last = len(shape.multipliers) - 1
    for stage in range(last + 1):
        # Every upsampler halves the channels.
        inputs, outputs = widths[stage] // (2 if stage else 1), widths[stage + 1]
        for index in range(shape.resnets + 1):
            yield from _resnet(scale, frames, inputs if index == 0 else outputs, outputs)
        if stage == last:
            break
        if temporal[stage]:
            yield LayerCost(scale, frames - 1, outputs, 2 * outputs, 3, 0)
            frames = 2 * frames - 1
        scale *= 2
        # Neighbours are asked before the picture is made twice as large.
        yield LayerCost(scale, frames, outputs, outputs // 2, 9, 0.5)
    yield LayerCost(scale, frames, widths[-1], shape.channels, 27, 1)


def _encoder(shape: VAEShape, latent_frames: int) -> Iterator[LayerCost]:
    widths = [shape.base_dim * factor for factor in (1, *shape.multipliers)]
    scale = float(2 ** (len(shape.multipliers) - 1))
    frames = latent_frames
    for flag in shape.temporal:
        frames = 2 * frames - 1 if flag else frames
    yield LayerCost(scale, frames, shape.channels, widths[0], 27, 1)
    for stage, (inputs, outputs) in enumerate(pairwise(widths)):
        for index in range(shape.resnets):
            yield from _resnet(scale, frames, inputs if index == 0 else outputs, outputs)
        if stage == len(shape.multipliers) - 1:
            break
        scale /= 2
        yield LayerCost(scale, frames, outputs, outputs, 9, 1)
        if shape.temporal[stage]:
            frames = (frames + 1) // 2
            yield LayerCost(scale, frames - 1, outputs, outputs, 3, 0)
    for _ in range(2):
        yield from _resnet(scale, frames, widths[-1], widths[-1])
    yield LayerCost(scale, frames, widths[-1], 2 * shape.z_dim, 27, 1)
    yield LayerCost(scale, frames, 2 * shape.z_dim, 2 * shape.z_dim, 1, 0)
