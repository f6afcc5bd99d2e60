"""ComfyUI's IMAGE, AUDIO, CONDITIONING and CLIP_VISION_OUTPUT as what the engine takes; anything unusable by name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from livetalk_core.errors import AudioError, ConfigError, ImageError, OutputError
from livetalk_core.media import array_sound
from livetalk_core.media.pictures import MAX_MEGAPIXELS, MIN_SIDE

from .limits import TEMPORARY_FOLDER_HINT

LATENT_CHANNELS = 16
FILE_BACKED_SECONDS = 60
"""Longer sound waits in a file, so that hours of speech do not stay in memory."""
_BLOCK_SAMPLES = 65_536

SOURCES = {
    "model": "Load LiveTalk Model",
    "audio": "Audio Encode (LiveTalk)",
    "stream": "Stream Chunk Sampler (LiveTalk)",
}
"""Socket -> the node that it is connected to."""


def require_recipe(value: object, kind: type, socket: str) -> None:
    """Raise ConfigError unless a socket of ours holds what our nodes put there."""
    if not isinstance(value, kind):
        raise ConfigError(f"The {socket} input holds {_described(value)}.", f"Connect {SOURCES[socket]}.")


def picture(images: Any) -> Image.Image:
    """The first picture of an IMAGE, float [B,H,W,C] in 0..1 with C = 1, 3 or 4, as RGB.

    Raises:
        ImageError: no such tensor, no picture in it, too small or too large, or values that are not numbers.
    """
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise ImageError(f"The image input holds {_described(images)}.", "Connect an IMAGE, for instance Load Image.")
    batch, height, width, _ = images.shape
    if batch == 0 or min(height, width) < MIN_SIDE:
        raise ImageError(
            f"The image input holds {batch} picture(s) of {width}x{height} pixels.",
            f"Connect one of at least {MIN_SIDE}x{MIN_SIDE}.",
        )
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise ImageError(f"The picture is {width}x{height} pixels.", f"At most {MAX_MEGAPIXELS} megapixels: scale it.")
    pixels = images[0].detach().to("cpu", torch.float32)
    if not torch.isfinite(pixels).all():
        raise ImageError("The picture has pixels that are not numbers.", "Look at the node that made it.")
    if pixels.shape[2] == 4:  # transparent parts become white
        alpha = pixels[..., 3:].clamp(0, 1)
        pixels = pixels[..., :3] * alpha + (1 - alpha)
    values = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, -1, 3)
    return Image.fromarray(np.ascontiguousarray(values.numpy()))


def sound(audio: Any, sample_rate: int, folder: Path) -> NDArray[np.float32]:
    """An AUDIO, averaged over its channels, as samples [S] at the given rate.

    Args:
        audio: {"waveform": float [1,C,S], "sample_rate": int}.
        sample_rate: The rate that comes out.
        folder: Where sound above `FILE_BACKED_SECONDS` is kept.

    Raises:
        AudioError: no AUDIO, several clips, no samples, or samples that are not numbers.
        OutputError: the file cannot be written.
    """
    waveform, rate = _waveform(audio)
    with array_sound(_mono_blocks(waveform), sample_rate, from_rate=rate, name="The audio input") as reader:
        if waveform.shape[1] <= FILE_BACKED_SECONDS * rate:
            return np.concatenate(list(reader))
        return _in_file(reader, folder)


def text_features(conditioning: Any) -> torch.Tensor:
    """The text features [1,L,D] of a CONDITIONING from CLIPTextEncode.

    Raises:
        ConfigError: empty, or of another shape.
    """
    first = conditioning[0] if isinstance(conditioning, Sequence) and conditioning else None
    features = first[0] if isinstance(first, Sequence) and first else None
    if not isinstance(features, torch.Tensor) or features.ndim != 3 or features.shape[0] != 1:
        raise ConfigError(
            f"The conditioning input holds {_described(features)}.",
            "Connect CLIPTextEncode behind a CLIPLoader of type wan (umt5_xxl).",
        )
    return features


def image_features(output: Any) -> torch.Tensor:
    """The features [1,n,D] of a CLIP_VISION_OUTPUT: the last layer but one, as the Wan models take it.

    Raises:
        ConfigError: they are not there.
    """
    features = getattr(output, "penultimate_hidden_states", None)
    if not isinstance(features, torch.Tensor) or features.ndim != 3 or features.shape[0] != 1:
        raise ConfigError(
            f"The clip_vision_output input holds {_described(features)}.",
            "Connect CLIPVisionEncode with clip_vision_h and one picture.",
        )
    return features


def latents(value: Any) -> torch.Tensor:
    """The latents of a LATENT as float32 [B,16,T,h,w] on the CPU; one of a picture becomes a video of one frame.

    Raises:
        ConfigError: other channels or axes, none at all, or values that are not numbers.
    """
    tensor = value.get("samples") if isinstance(value, Mapping) else None
    if isinstance(tensor, torch.Tensor) and tensor.ndim == 4:
        tensor = tensor.unsqueeze(2)
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 5 or tensor.shape[1] != LATENT_CHANNELS:
        raise ConfigError(
            f"The samples input holds {_described(tensor)}.",
            f"Connect latents of a Wan video model, [B,{LATENT_CHANNELS},T,h,w].",
        )
    if tensor.numel() == 0:
        raise ConfigError(f"The latents are empty: {_described(tensor)}.", "Look at the node that made them.")
    tensor = tensor.detach().to("cpu", torch.float32).contiguous()
    if not torch.isfinite(tensor).all():
        raise ConfigError("The latents have values that are not numbers.", "Look at the node that made them.")
    return tensor


def _waveform(audio: Any) -> tuple[torch.Tensor, int]:
    hint = "Connect an AUDIO, for instance Load Audio."
    waveform = audio.get("waveform") if isinstance(audio, Mapping) else None
    rate = audio.get("sample_rate") if isinstance(audio, Mapping) else None
    if not isinstance(waveform, torch.Tensor) or waveform.ndim != 3 or not isinstance(rate, int) or rate <= 0:
        raise AudioError(f"The audio input holds {_described(waveform)} at a rate of {rate!r}.", hint)
    clips, channels, samples = waveform.shape
    if clips != 1:
        raise AudioError(f"The audio input holds {clips} clips.", "Give one clip at a time.")
    if channels == 0 or samples == 0:
        raise AudioError("The audio input is empty: it has no samples.", "Connect a recording with sound in it.")
    return waveform[0].detach(), rate


def _mono_blocks(waveform: torch.Tensor) -> Iterator[NDArray[np.float32]]:
    """The mean over the channels, block by block: hours of sound are not copied as a whole."""
    for block in waveform.split(_BLOCK_SAMPLES, dim=1):
        # The sum of float64 is the one that reading a sound file uses: the same sound, the same frames.
        yield block.to("cpu", torch.float64).mean(dim=0).to(torch.float32).numpy()


def _in_file(blocks: Any, folder: Path) -> NDArray[np.float32]:
    path = folder / f"sound-{uuid4().hex}.f32"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for block in blocks:
                file.write(np.ascontiguousarray(block, np.float32).data)
        return _mapped(path)
    except BaseException as error:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"The sound cannot be kept in {folder} ({error.strerror}).", TEMPORARY_FOLDER_HINT, file=str(path)
        ) from error


def _mapped(path: Path) -> NDArray[np.float32]:
    """The samples of a file that goes when nobody needs them any more (Windows: when ComfyUI clears its folder)."""
    samples = np.memmap(path, np.float32, mode="r")
    if os.name == "posix":
        path.unlink()
    return samples


def _described(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return "nothing" if value is None else f"a {type(value).__name__}"
