"""A raw clip through the model's encoders: everything that training needs of it, so that no pixel is read again."""

from __future__ import annotations

import torch
from torch import Tensor

from ...engine.constants import audio_encoder, reference_latents
from ...errors import TrainingError
from ...models.bundle import ModelBundle
from ...models.encoders import encode_text, image_features
from .prepared import CONTEXT
from .raw import Frames, RawClip


@torch.no_grad()
def encode_clip(bundle: ModelBundle, clip: RawClip) -> dict[str, Tensor]:
    """Tensors of a clip by kind, as `PreparedSet` reads them; each chunk as the engine would encode it."""
    geometry = bundle.defaults.geometry
    chunks = (len(clip.frames) - geometry.motion_frames) // geometry.slice_frames
    step = geometry.slice_frames
    latents = [
        bundle.vae.encode(_video(bundle, clip.frames[k * step : k * step + geometry.frames])) for k in range(chunks)
    ]
    pictures = torch.cat([_video(bundle, clip.references[r : r + 1]) for r in range(len(clip.references))])
    known = [reference_latents(bundle, picture[None], geometry) for picture in pictures]
    states = image_features(bundle.image_encoder, pictures[:, :, 0])
    return {
        "latents": torch.cat(latents).bfloat16().cpu(),
        "features": encode_sound(bundle, clip, chunks),
        "references": torch.cat(known)[:, geometry.temporal_stride :].bfloat16().cpu(),
        "clip_features": states.bfloat16().cpu(),
        "pictures": torch.from_numpy(clip.references.copy()),
        "samples": (torch.from_numpy(clip.samples).clamp(-1, 1) * 32767).round().to(torch.int16),
    }


@torch.no_grad()
def encode_sound(bundle: ModelBundle, clip: RawClip, chunks: int) -> Tensor:
    """The newest rows of each chunk's window, [K, frames + context, layers, channels] bfloat16."""
    geometry = bundle.defaults.geometry
    encoder = audio_encoder(bundle, bundle.defaults.stream())
    rows = []
    for chunk in range(chunks):
        first = chunk * geometry.slice_samples
        window = clip.samples[first : first + geometry.window_samples]
        rows.append(encoder.encode(window, geometry.window_frames)[-(geometry.frames + CONTEXT) :])
    return torch.stack(rows).bfloat16().cpu()


def encode_texts(bundle: ModelBundle, prompts: list[str], negative: str) -> dict[str, Tensor]:
    """States of each prompt and of the negative one, padded to the model's length; zeros without a text encoder."""
    model = bundle.transformer.config
    states: dict[str, Tensor] = {}
    for name, prompt in [("null", negative), *((f"prompt.{n}", text) for n, text in enumerate(prompts))]:
        padded = torch.zeros(model.text_len, model.text_dim)
        if bundle.text_encoder is not None and bundle.tokenizer is not None:
            encoded = encode_text(bundle.text_encoder, bundle.tokenizer, prompt, model.text_len)[0].float().cpu()
            padded[: len(encoded)] = encoded
        states[name] = padded
    return states


def _video(bundle: ModelBundle, frames: Frames) -> Tensor:
    """uint8 [F,H,W,3] -> [1,3,F,H,W] in [-1,1] as the VAE takes it."""
    if frames.shape[1] % 16 or frames.shape[2] % 16:
        raise TrainingError(f"Frames are {frames.shape[2]}x{frames.shape[1]}.", "Both sides must be multiples of 16.")
    video = torch.from_numpy(frames.copy()).permute(3, 0, 1, 2)[None]
    return (video.float() / 127.5 - 1).to(bundle.device, bundle.dtype)
