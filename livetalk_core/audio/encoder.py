"""From samples to the windows of per-frame features that the transformer listens to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..chunking import chunk_span, window_rows
from ..config import AudioConfig, ChunkGeometry
from .loudness import match_loudness
from .ring import AudioRing

FeatureFunction = Callable[[Tensor, int], Tensor]
"""(samples [B,S], video frames F) -> features [B,F,layers,channels]."""


class AudioEncoder:
    """Loudness, features and windows, as the published pipeline makes them for a chunk.

    Args:
        features: The audio network, with the normalisation it expects.
        geometry: How samples and frames line up.
        config: Loudness target and width of the windows.
    """

    def __init__(self, features: FeatureFunction, geometry: ChunkGeometry, config: AudioConfig) -> None:
        self._features = features
        self._geometry = geometry
        self._config = config

    def encode(self, samples: NDArray[np.float32], frames: int) -> Tensor:
        """Features [frames, layers, channels] of samples [S] that last `frames` video frames."""
        loud = match_loudness(samples, self._geometry.sample_rate, self._config.loudness)
        return self._features(torch.from_numpy(loud).unsqueeze(0), frames)[0]

    def encode_clip(self, samples: NDArray[np.float32], frames: int) -> Tensor:
        """Features [frames, layers, channels] of a whole clip: silence added up to `frames`, the rest cut off.

        Loudness is measured on the sound alone, so that the added silence does not change it.
        """
        loud = match_loudness(samples, self._geometry.sample_rate, self._config.loudness)
        missing = frames * self._geometry.samples_per_frame - len(loud)
        padded = np.pad(loud, (0, max(0, missing)))[: frames * self._geometry.samples_per_frame]
        return self._features(torch.from_numpy(padded).unsqueeze(0), frames)[0]

    def windows(self, features: Tensor, first: int, count: int) -> Tensor:
        """Windows [1, count, 2*context+1, layers, channels] around the frames from `first` on."""
        rows = window_rows(first, count, features.shape[0], self._config.context)
        return features[torch.tensor(rows, device=features.device)].unsqueeze(0)

    def stream_windows(self, ring: AudioRing) -> Tensor:
        """Windows of the newest chunk in the sliding window: [1, F, 2*context+1, layers, channels]."""
        span = chunk_span(0, self._geometry, "stream")
        features = self.encode(ring.samples, self._geometry.window_frames)
        return self.windows(features, span.first_feature, span.features)
