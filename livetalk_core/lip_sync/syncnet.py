"""SyncNet: how well lips and sound belong together, by a published network whose weights the user brings.

Weights are not part of LiveTalk: `syncnet_v2.model` of the authors, renamed to .pth, becomes safetensors by
`livetalk convert --accept-unlisted`. Network, sound features and score are those of that release (Chung and Zisserman:
Out of time, automated lip sync in the wild, 2016).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.fft import dct
from torch import Tensor, nn

from ..errors import AudioError, CheckpointError

SIDE = 224
"""Frames are squares of this size, RGB; the face should fill them."""

MAX_SHIFT = 15
_FRAMES, _ROWS, _ROWS_PER_FRAME = 5, 20, 4
_BATCH = 16
_RATE, _FRAME, _STEP, _FFT = 16_000, 400, 160, 512
_FILTERS, _COEFFICIENTS, _LIFTER = 26, 13, 22


@dataclass(frozen=True)
class SyncScore:
    """What SyncNet says of a video.

    Attributes:
        confidence: Median over shifts of the mean distance, minus the least one; higher is better (Sync-C).
        distance: The least mean distance between lips and sound over all shifts; lower is better (Sync-D).
        lag: Shift of the least distance in frames; positive: the lips come late.
    """

    confidence: float
    distance: float
    lag: int


def _conv2d(inward: int, outward: int, size: tuple[int, int], padding: int) -> list[nn.Module]:
    return [nn.Conv2d(inward, outward, size, padding=padding), nn.BatchNorm2d(outward), nn.ReLU()]


def _conv3d(
    inward: int, outward: int, size: tuple[int, int, int], stride: int = 1, padding: int = 0
) -> list[nn.Module]:
    layer = nn.Conv3d(inward, outward, size, (1, stride, stride), (0, padding, padding))
    return [layer, nn.BatchNorm3d(outward), nn.ReLU()]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNet(nn.Module):
    """Two towers to one space of 1024 numbers; parameter names are those of the published weights."""

    def __init__(self) -> None:
        super().__init__()
        square = (3, 3)
        self.netcnnaud = nn.Sequential(
            *_conv2d(1, 64, square, 1), nn.MaxPool2d(1, 1),
            *_conv2d(64, 192, square, 1), nn.MaxPool2d(3, (1, 2)),
            *_conv2d(192, 384, square, 1), *_conv2d(384, 256, square, 1), *_conv2d(256, 256, square, 1),
            nn.MaxPool2d(3, 2), *_conv2d(256, 512, (5, 4), 0),
        )  # fmt: skip
        flat = (1, 3, 3)
        self.netcnnlip = nn.Sequential(
            *_conv3d(3, 96, (5, 7, 7), stride=2), nn.MaxPool3d(flat, (1, 2, 2)),
            *_conv3d(96, 256, (1, 5, 5), stride=2, padding=1), nn.MaxPool3d(flat, (1, 2, 2), (0, 1, 1)),
            *_conv3d(256, 256, flat, padding=1), *_conv3d(256, 256, flat, padding=1),
            *_conv3d(256, 256, flat, padding=1), nn.MaxPool3d(flat, (1, 2, 2)), *_conv3d(256, 512, (1, 6, 6)),
        )  # fmt: skip
        self.netfcaud, self.netfclip = _head(), _head()

    def sound(self, rows: Tensor) -> Tensor:
        """Sound features [N,1,13,20] -> [N,1024]."""
        result: Tensor = self.netfcaud(self.netcnnaud(rows).flatten(1))
        return result

    def lips(self, clips: Tensor) -> Tensor:
        """Five frames in blue, green, red, 0..255: [N,3,5,224,224] -> [N,1024]."""
        result: Tensor = self.netfclip(self.netcnnlip(clips).flatten(1))
        return result


def load_syncnet(path: Path) -> SyncNet:
    """The network with the weights in a safetensors file.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    network = SyncNet()
    counters = {name for name, _ in network.named_buffers() if name.endswith("num_batches_tracked")}
    try:
        found = network.load_state_dict(load_file(path), strict=False)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"SyncNet cannot be read from {path} ({reason}).", _HINT, file=str(path)) from error
    wrong = [*found.unexpected_keys, *sorted(set(found.missing_keys) - counters)]
    if wrong:
        raise CheckpointError(f"{path} holds no SyncNet: {wrong[0]!r} does not fit.", _HINT, file=str(path))
    return network.eval().requires_grad_(False)


_HINT = "Give the authors' syncnet_v2 weights as safetensors: livetalk convert syncnet_v2.pth --accept-unlisted."


@torch.no_grad()
def sync_score(network: SyncNet, frames: Iterable[NDArray[np.uint8]], samples: NDArray[np.float32]) -> SyncScore:
    """Compare lips and sound of a video at every shift of up to 15 frames.

    Args:
        network: With its weights.
        frames: Squares uint8 [224,224,3], RGB, 25 per second; read once.
        samples: The sound [S] at 16 kHz, -1..1.

    Raises:
        AudioError: less than five frames, or less sound than that.
    """
    sound = torch.from_numpy(np.ascontiguousarray(mfcc(samples * 32768)))
    lips = _embed_lips(network, frames)
    windows = sound.unfold(0, _ROWS, _ROWS_PER_FRAME)[: len(lips)] if len(sound) >= _ROWS else sound[:0]
    count = min(len(lips), len(windows))
    if count < 1:
        raise AudioError("SyncNet needs five frames of video and their sound.", "Give a longer video.")
    heard = torch.cat([network.sound(part[:, None].float()) for part in windows[:count].split(_BATCH)])
    return best_shift(lips[:count], heard)


def best_shift(lips: Tensor, heard: Tensor) -> SyncScore:
    """Score of embeddings [T,1024] of lips and of sound."""
    around = nn.functional.pad(heard, (0, 0, MAX_SHIFT, MAX_SHIFT))
    shifts = range(2 * MAX_SHIFT + 1)
    distances = torch.stack([nn.functional.pairwise_distance(lips, around[s : s + len(lips)]).mean() for s in shifts])
    least = int(distances.argmin())
    distance = float(distances[least])
    return SyncScore(float(np.median(distances.numpy())) - distance, distance, MAX_SHIFT - least)


def _embed_lips(network: SyncNet, frames: Iterable[NDArray[np.uint8]]) -> Tensor:
    """Embeddings [T-4,1024] of every five frames in a row, in bounded memory."""
    held: list[NDArray[np.uint8]] = []
    parts: list[Tensor] = []

    def embed() -> None:
        video = torch.from_numpy(np.stack(held)[..., ::-1].copy()).float().permute(3, 0, 1, 2)
        parts.append(network.lips(video.unfold(1, _FRAMES, 1).permute(1, 0, 4, 2, 3)))
        del held[: len(held) - _FRAMES + 1]

    for frame in frames:
        held.append(frame)
        if len(held) == _BATCH + _FRAMES - 1:
            embed()
    if len(held) >= _FRAMES:
        embed()
    return torch.cat(parts) if parts else torch.zeros(0, 1024)


def mfcc(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Sound features [rows,13], 100 rows per second, of samples [S] at 16 kHz in -32768..32767.

    Mel cepstrum with the log of the energy as its first number: frames of 25 ms without a window function, 26 filters,
    pre-emphasis .97, lifter 22.
    """
    signal = np.asarray(samples, np.float64)
    signal = np.append(signal[:1], signal[1:] - 0.97 * signal[:-1])
    rows = 1 + max(0, -(-(len(signal) - _FRAME) // _STEP))
    padded = np.pad(signal, (0, (rows - 1) * _STEP + _FRAME - len(signal)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _FRAME)[::_STEP]
    power = np.abs(np.fft.rfft(windows, _FFT)) ** 2 / _FFT
    smallest = np.finfo(float).eps
    energy = np.maximum(power.sum(axis=1), smallest)
    bands = np.log(np.maximum(power @ _mel_filters().T, smallest))
    cepstrum = dct(bands, type=2, axis=1, norm="ortho")[:, :_COEFFICIENTS]
    cepstrum *= 1 + _LIFTER / 2 * np.sin(np.pi * np.arange(_COEFFICIENTS) / _LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return np.asarray(cepstrum)


def _mel_filters() -> NDArray[np.float64]:
    """Triangles [26,257] between points that are even on the mel scale from 0 to 8 kHz."""
    mels = np.linspace(0, 2595 * np.log10(1 + _RATE / 2 / 700), _FILTERS + 2)
    points = np.floor((_FFT + 1) * 700 * (10 ** (mels / 2595) - 1) / _RATE)
    bins = np.arange(_FFT // 2 + 1)
    left, top, right = (points[i : i + _FILTERS, None] for i in range(3))
    # A bin at the top belongs to the falling side, as in the release.
    rising, falling = (bins - left) / (top - left), (right - bins) / (right - top)
    inside = (bins >= left) & (bins < right)
    return np.where(inside, np.where(bins < top, rising, falling), 0.0)
