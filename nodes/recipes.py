"""What the sockets between the nodes carry: immutable descriptions, never a connection or a loaded model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from livetalk_core.config import ChunkGeometry, CorrectionConfig, Offload


@dataclass(frozen=True)
class ModelRecipe:
    """LIVETALK_MODEL: which model, and how it is to be run.

    Attributes:
        name: What it is called in the list of models.
        folder: Model folder; None for the embedded model.
        stamp: Changes when a file of the model does.
        device, dtype, attention, compile, offload: See `production.VideoRequest`.
        gpus: How many GPUs (on a CPU: processes) share each chunk.
        vae_file: A VAE's file for decoding latents; None for the model's own.
    """

    name: str
    folder: str | None
    stamp: str = ""
    device: str = "auto"
    dtype: str = "auto"
    gpus: int = 1
    attention: str = "auto"
    compile: bool = False
    vae_file: str | None = None
    offload: Offload = "auto"


@dataclass(frozen=True, eq=False)
class AudioRecipe:
    """LIVETALK_AUDIO: checked sound, and how it is to be encoded.

    Attributes:
        samples: Mono float32 [S] at the model's rate; file-backed where it is long.
        sample_rate: Samples per second.
        mode: "stream" encodes chunk by chunk, "whole" the entire clip at once.
        loudness: LUFS that the sound is brought to before it is encoded.
    """

    samples: NDArray[np.float32]
    sample_rate: int
    mode: Literal["stream", "whole"] = "stream"
    loudness: float = -23.0

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return len(self.samples) / self.sample_rate


@dataclass(frozen=True, eq=False)
class StreamRecipe:
    """LIVETALK_STREAM: a video that can be made; what is None comes from the model.

    Attributes:
        picture: The person, RGB.
        size: Width and height.
        geometry: Chunk lengths.
        correction: What the next chunk is conditioned on.
        context: Text features [1,L,text_dim] in place of encoding the prompt.
        clip_features: Image features [1,n,clip_dim] in place of encoding the picture.
    """

    model: ModelRecipe
    audio: AudioRecipe
    picture: Image.Image
    prompt: str = ""
    seed: int = 9999
    size: tuple[int, int] | None = None
    steps: int | None = None
    shift: float | None = None
    geometry: ChunkGeometry | None = None
    max_seconds: float | None = None
    correction: CorrectionConfig | None = None
    context: Tensor | None = None
    clip_features: Tensor | None = None


@dataclass(frozen=True, eq=False)
class LatentRecipe:
    """Latents to decode.

    Attributes:
        latents: Un-normalised, as they come from ComfyUI's samplers: float32 [B,16,T,h,w] on the CPU.
        vae: Its folder is the file of a VAE.
        fps: Frames per second of the video.
        tiled: Decode approximately, in overlapping tiles.
    """

    latents: Tensor
    vae: ModelRecipe
    fps: int
    tiled: bool = False
