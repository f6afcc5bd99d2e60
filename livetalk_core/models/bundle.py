"""A loaded model: its modules, its defaults and where it lives; made by loading, used by the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ..config import AudioConfig, ChunkGeometry, CorrectionConfig, SamplerConfig, Settings, StreamConfig

if TYPE_CHECKING:
    import torch

    from .transformer import LiveTalkTransformer3DModel
    from .vae import WanVideoVAE


class ModelDefaults(Settings, frozen=True, kw_only=True):
    """What a stream uses where the user sets nothing: the settings the model was trained for."""

    width: int
    height: int
    prompt: str = ""
    geometry: ChunkGeometry = ChunkGeometry()
    sampler: SamplerConfig = SamplerConfig()
    correction: CorrectionConfig = CorrectionConfig()
    audio: AudioConfig = AudioConfig()

    def stream(self, *, steps: int | None = None, **changes: Any) -> StreamConfig:
        """The settings of a stream: these, with the steps of the sampler and any others (by name) where given.

        Raises:
            ConfigError: a value that is not allowed.
        """
        settings = msgspec.structs.asdict(self) | changes
        if steps is not None:
            settings["sampler"] = SamplerConfig(steps=steps, shift=settings["sampler"].shift)
        return StreamConfig(**settings)


@dataclass(frozen=True)
class ModelBundle:
    """The modules of one model, on their device and in their dtype.

    Attributes:
        transformer: Denoiser.
        vae: Encoder and decoder between video [B,3,F,H,W] in [-1,1] and normalised latents [B,16,T,h,w].
        audio_encoder: `transformers.Wav2Vec2Model`, always float32.
        audio_normalise: Whether the audio encoder expects zero mean and unit variance.
        image_encoder: `transformers.CLIPVisionModel`.
        text_encoder: `transformers.UMT5EncoderModel`, or None for a model without text.
        tokenizer: Tokenizer of the text encoder, or None.
        defaults: Settings the model was trained for.
        name: Name for people.
        revision: Fingerprint of the weights; a saved stream continues only on the same one.
        device: Where transformer and VAE compute.
        dtype: Number format of transformer and VAE.
    """

    transformer: LiveTalkTransformer3DModel
    vae: WanVideoVAE
    audio_encoder: Any
    audio_normalise: bool
    image_encoder: Any
    text_encoder: Any | None
    tokenizer: Any | None
    defaults: ModelDefaults
    name: str
    revision: str
    device: torch.device
    dtype: torch.dtype
