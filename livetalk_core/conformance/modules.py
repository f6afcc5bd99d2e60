"""One module at a time on recorded inputs, through the functions that the engine itself calls."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from ..audio import AudioEncoder, match_loudness
from ..config import AudioConfig, ChunkGeometry
from ..media import cover_and_crop
from ..models.capture import capture_intermediates
from ..models.encoders import image_features, text_features
from ..models.wav2vec2 import audio_features, normalise
from ..retrospective import color_reference, match_color
from . import builders
from .vectors import Vectors


def check_transformer(vectors: Vectors) -> dict[str, Tensor]:
    """One forward pass of the transformer with the result of every stage."""
    given = vectors.tensors("dit_io")
    model = builders.transformer(vectors, given["in.audio"])
    with capture_intermediates(model) as stages:
        stream = model.encode_stream(_batched(given["in.context"], 3), given["in.clip_fea"])
        audio = model.encode_audio(given["in.audio"])
        velocity = model(_batched(given["in.x"], 5), given["in.y"], given["in.t"], stream, audio)
    return {**{f"mid.{name}": value for name, value in stages.items()}, "out.v": velocity}


def check_vae(vectors: Vectors) -> dict[str, Tensor]:
    """Encode and decode of clips of several lengths."""
    given = vectors.tensors("vae_io")
    model = builders.vae(vectors)
    results = {"mid.mean": model.mean.flatten(), "mid.inv_std": model.inv_std.flatten()}
    for (length,), video in _numbered(given, r"in\.video_(\d+)"):
        results[f"out.z_{length}"] = model.encode(video)
    by_length: dict[int, Tensor] = {}
    for (length,), latents in _numbered(given, r"in\.latent_(\d+)"):
        video = model.decode(_batched(latents, 5))
        results[f"out.video_from_latent_{length}"] = by_length[video.shape[2]] = video
    streamed = given.get("out.decode_stream_cat")
    if streamed is not None and streamed.shape[2] in by_length:
        # The published piecewise decode gives the same frames as the decode in one go.
        results["out.decode_stream_cat"] = by_length[streamed.shape[2]]
    return results


def check_audio(vectors: Vectors) -> dict[str, Tensor]:
    """Samples to loudness, features and windows, for a stream's chunk and for a whole clip."""
    given = vectors.tensors("audio_io")
    (samples,) = (value.numpy() for _, value in _numbered(given, r"in\.pcm\w*"))
    frames = given["mid.hidden_states_s_b_d"].shape[0]
    stream = dict(_numbered(given, r"out\.windows_stream_(\d+)_(\d+)"))
    clip = given.get("out.windows_once")
    windows = [*stream.values(), *([] if clip is None else [clip])]
    encoder, geometry, settings = _audio_encoder(vectors, len(samples), frames, windows)
    loud = match_loudness(samples, geometry.sample_rate, settings.loudness)
    hidden = encoder.encode(samples, frames)
    results = {"mid.loudness_normed": torch.from_numpy(loud), "mid.hidden_states_s_b_d": hidden}
    for first, stop in stream:
        name = f"out.windows_stream_{first}_{stop}"
        results[name] = encoder.windows(hidden, int(first), int(stop) - int(first))
    if clip is not None:
        # The whole clip is the beginning of the same sound, one frame per recorded window.
        sound = samples[: clip.shape[1] * geometry.samples_per_frame]
        features = encoder.encode_clip(sound, clip.shape[1])
        results["out.windows_once"] = encoder.windows(features, 0, clip.shape[1])
    return results


def _audio_encoder(
    vectors: Vectors, samples: int, frames: int, windows: list[Tensor]
) -> tuple[AudioEncoder, ChunkGeometry, AudioConfig]:
    """The engine's audio path at the rates that the recorded lengths imply."""
    config, model = vectors.config("wav2vec"), builders.audio_encoder(vectors)
    rate = int(config["sampling_rate"])
    geometry = ChunkGeometry(
        frames=1 + ChunkGeometry().temporal_stride,
        motion_frames=1,
        fps=round(frames * rate / samples),
        sample_rate=rate,
        window_seconds=max(1, round(samples / rate)),
    )
    settings = AudioConfig(context=(windows[0].shape[2] - 1) // 2) if windows else AudioConfig()

    def features(waveform: Tensor, count: int) -> Tensor:
        return audio_features(model, normalise(waveform) if config["do_normalize"] else waveform, count)

    return AudioEncoder(features, geometry, settings), geometry, settings


def check_clip(vectors: Vectors) -> dict[str, Tensor]:
    """The image encoder's second-to-last layer."""
    given = vectors.tensors("clip_io")
    model = builders.image_encoder(vectors)
    return {"out.features": image_features(model, _pictures(given["in.image_pm1"]))}


def check_t5(vectors: Vectors) -> dict[str, Tensor]:
    """The text encoder's states of padded token ids."""
    given = vectors.tensors("t5_io")
    model = builders.text_encoder(vectors)
    return {"out.context": text_features(model, given["in.ids"], given["in.mask"])}


def check_color(vectors: Vectors) -> dict[str, Tensor]:
    """Colour match at every recorded strength, and scaling and cropping of the reference picture."""
    given = vectors.tensors("color_io")
    results: dict[str, Tensor] = {}
    for (strength,), _ in _numbered(given, r"out\.strength_([\d.]+)"):
        reference = color_reference(given["in.reference"])
        results[f"out.strength_{strength}"] = match_color(given["in.source"], reference, float(strength))
    for (height, width), _ in _numbered(given, r"out\.resize_centercrop_(\d+)x(\d+)"):
        picture = Image.fromarray(given["in.image_u8"].numpy())
        pixels = torch.from_numpy(cover_and_crop(picture, int(width), int(height)))
        results[f"out.resize_centercrop_{height}x{width}"] = pixels.permute(2, 0, 1)[None, :, None]
    return results


def _numbered(tensors: dict[str, Tensor], pattern: str) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Tensors whose whole name matches, with what the groups caught."""
    for name, tensor in tensors.items():
        match = re.fullmatch(pattern, name)
        if match:
            yield match.groups(), tensor


def _batched(tensor: Tensor, axes: int) -> Tensor:
    """The tensor with a batch axis, if it came without."""
    return tensor if tensor.ndim == axes else tensor.unsqueeze(0)


def _pictures(image: Tensor) -> Tensor:
    """[B,3,1,H,W] -> [B,3,H,W]."""
    return image.squeeze(2) if image.ndim == 5 else image
