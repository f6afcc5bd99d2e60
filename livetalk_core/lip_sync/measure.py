"""Mouth opening and eye closure of frames, measured by regressors that were trained on true renders.

They know the drawn faces of the embedded model, placed as the renderer places them; on other pictures their
values mean nothing.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from ..errors import CheckpointError, ImageError
from .network import EYES, FACE_SIDE, MOUTH, RegionRegressor, RegionSpec

WEIGHTS = Path(__file__).resolve().parent.parent / "assets" / "lip_sync" / "face_measures.safetensors"
"""Half-precision weights of both regressors; made by `python -m livetalk_core.training.embedded.train_lip_measure`."""

_BATCH = 256


def mouth_opening(frames: NDArray[np.uint8], weights: Path = WEIGHTS) -> NDArray[np.float32]:
    """Opening of the mouth, 0 closed .. 1 wide open: the first mouth parameter of the avatar renderer.

    Args:
        frames: uint8 [F,H,W,3]; other sizes than 128x128 are resized first.
        weights: Weight file.

    Returns:
        float32 [F].

    Raises:
        ImageError: frames of another type or shape.
        CheckpointError: the weight file is missing or damaged.
    """
    return _measure(MOUTH, frames, weights)


def eye_closure(frames: NDArray[np.uint8], weights: Path = WEIGHTS) -> NDArray[np.float32]:
    """Closure of the eyes, 0 open .. 1 closed, float32 [F]; arguments and errors as `mouth_opening`."""
    return _measure(EYES, frames, weights)


@lru_cache(maxsize=4)
def load_measure(spec: RegionSpec, weights: Path = WEIGHTS) -> RegionRegressor:
    """The trained regressor of a region, in float32 on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    network = RegionRegressor(spec)
    prefix = f"{spec.name}."
    try:
        tensors = load_file(str(weights))
        own = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        network.load_state_dict(own)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"The {spec.name} measure cannot be read from {weights}: {error}",
            "Reinstall the package, or train it: python -m livetalk_core.training.embedded.train_lip_measure.",
            file=str(weights),
        ) from error
    return network.eval().requires_grad_(False)


def faces_of(frames: NDArray[np.uint8]) -> Tensor:
    """Frames uint8 [F,H,W,3] -> float32 [F,3,128,128] in 0..1, smoothed when made smaller."""
    faces = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    if frames.shape[1:3] == (FACE_SIDE, FACE_SIDE):
        return faces
    size = (FACE_SIDE, FACE_SIDE)
    return functional.interpolate(faces, size, mode="bilinear", align_corners=False, antialias=True)


@torch.no_grad()
def _measure(spec: RegionSpec, frames: NDArray[np.uint8], weights: Path) -> NDArray[np.float32]:
    _check(frames)
    network = load_measure(spec, weights)
    parts = np.split(frames, range(_BATCH, len(frames), _BATCH)) if len(frames) else []
    values = [network(spec.cut(faces_of(part))).clamp(0.0, 1.0).numpy() for part in parts]
    return np.concatenate(values) if values else np.zeros(0, np.float32)


def _check(frames: NDArray[np.uint8]) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:3]:
        raise ImageError(f"Frames are {frames.dtype} {list(frames.shape)}.", "Give uint8 RGB frames [F, H, W, 3].")
