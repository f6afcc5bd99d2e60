"""Put the trained parts together as the model folder that ships with LiveTalk.

`python -m ...embedded.package_embedded --stage1 DIR --vae DIR --audio DIR [--student DIR] [--out DIR]`
Without a student, the transformer is that of stage 1: the model that stage 2 begins with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from transformers import CLIPVisionModel, Wav2Vec2Model

from ...config import CorrectionConfig
from ...errors import TrainingError
from ...loading import load_model
from ...loading.layout import EMBEDDED_FOLDER
from ...loading.save import save_model
from ...models.bundle import ModelDefaults
from ...models.transformer import LiveTalkTransformer3DModel
from .clips import SIZE
from .command_line import logger, reporting

MAX_BYTES = 16_000_000
_DESCRIPTIONS = 100_000
"""Room for configurations and for the names of the tensors."""
ABOUT = (
    "Trained by livetalk_core.training on people drawn and speech synthesised by the same package; "
    "docs/embedded-model.md has the recipe."
)


def package(
    stage1: Path, vae_folder: Path, audio: Path, out: Path, correction: CorrectionConfig, student: Path | None = None
) -> int:
    """Write the model folder in half precision; returns its size in bytes.

    Args:
        stage1: Transformer, image encoder and the statistics of the latents.
        vae_folder, audio: VAE and audio encoder as their trainings exported them.
        out: Replaced if it exists.
        correction: Defaults of the model's streams.
        student: Model folder whose transformer takes the place of stage 1's.

    Raises:
        CheckpointError: the student cannot be loaded.
        TrainingError: a part is missing, or the folder is larger than what may ship.
    """
    for part in (stage1 / "transformer", stage1 / "image_encoder", stage1 / "vae", vae_folder, audio):
        if not (part / "config.json").is_file():
            raise TrainingError(f"{part} holds no trained part (config.json is missing).", "Run its training first.")
    if student is None:
        transformer = LiveTalkTransformer3DModel.from_pretrained(stage1 / "transformer")
    else:
        transformer = load_model(student, "cpu", "fp32").transformer
    vae = AutoencoderKLWan.from_pretrained(vae_folder)
    # Stage 1 normalised the latents by the statistics of its own cache.
    statistics = json.loads((stage1 / "vae" / "config.json").read_text())
    vae.register_to_config(latents_mean=statistics["latents_mean"], latents_std=statistics["latents_std"])
    audio_encoder = Wav2Vec2Model.from_pretrained(audio).float()
    image_encoder = CLIPVisionModel.from_pretrained(stage1 / "image_encoder")
    _require_small(transformer, vae, audio_encoder, image_encoder)
    save_model(
        out,
        transformer=transformer,
        vae=vae,
        audio_encoder=audio_encoder,
        audio_normalise=True,
        image_encoder=image_encoder,
        defaults=ModelDefaults(width=SIZE, height=SIZE, correction=correction),
        name="LiveTalk embedded",
        license="Apache-2.0",
        about=ABOUT,
        dtype=torch.float16,
        overwrite=True,
    )
    return sum(path.stat().st_size for path in out.rglob("*") if path.is_file())


def _require_small(*modules: torch.nn.Module) -> None:
    """Before anything that ships is replaced."""
    size = 2 * sum(parameter.numel() for module in modules for parameter in module.parameters()) + _DESCRIPTIONS
    if size > MAX_BYTES:
        raise TrainingError(f"The model would have {size} bytes.", f"The embedded model may have {MAX_BYTES}.")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage1", type=Path, required=True)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--student", type=Path, help="model folder that stage 2 exported")
    parser.add_argument("--out", type=Path, default=EMBEDDED_FOLDER)
    parser.add_argument("--color-strength", type=float, default=0.3)
    parser.add_argument("--border-fade", type=int, default=6)
    options = parser.parse_args(arguments)
    correction = CorrectionConfig(color_strength=options.color_strength, border_fade=options.border_fade)
    with reporting():
        size = package(options.stage1, options.vae, options.audio, options.out, correction, options.student)
        logger.info("%s: %.1f MB", options.out, size / 1e6)


if __name__ == "__main__":
    main()
