"""Let a trained transformer hear through another audio encoder, as the start of a further run of stage 1.

A linear map from the new encoder's features to the old one's is fitted on the sound of the clips and folded into the
first layers of the audio projection.

`python -m livetalk_core.training.embedded.refit_audio --model DIR --audio DIR --clips DIR --out DIR`
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from torch import Tensor
from transformers import Wav2Vec2Model

from ...models.transformer import LiveTalkTransformer3DModel
from .clips import ClipStore, open_clips
from .command_line import logger, reporting
from .latent_cache import sound_features

_RIDGE = 1e-3


def fit_features(new: Tensor, old: Tensor) -> tuple[Tensor, Tensor, float]:
    """Least squares from features [n,layers,channels] to others: matrix [old,new], bias [old], explained share."""
    x, y = new.flatten(1).double(), old.flatten(1).double()
    centre_x, centre_y = x.mean(0), y.mean(0)
    x, y = x - centre_x, y - centre_y
    gram = x.T @ x
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    matrix = torch.linalg.solve(gram + ridge, x.T @ y).T
    explained = 1 - (y - x @ matrix.T).square().sum() / y.square().sum()
    return matrix.float(), (centre_y - matrix @ centre_x).float(), float(explained)


def refit(
    transformer: LiveTalkTransformer3DModel, matrix: Tensor, bias: Tensor, channels: int
) -> LiveTalkTransformer3DModel:
    """The transformer for features of `channels` channels, of which `matrix` and `bias` make its own."""
    config = dict(transformer.config) | {"audio_channels": channels}
    changed: LiveTalkTransformer3DModel = LiveTalkTransformer3DModel(**config)
    state = dict(transformer.state_dict())
    for name in ("proj1", "proj1_vf"):
        weight = state[f"audio_proj.{name}.weight"]
        entries = weight.unflatten(1, (-1, len(matrix)))
        state[f"audio_proj.{name}.weight"] = (entries @ matrix).flatten(1)
        state[f"audio_proj.{name}.bias"] = state[f"audio_proj.{name}.bias"] + (entries @ bias).sum(1)
    changed.load_state_dict(state)
    return changed


@torch.inference_mode()
def features_of(folder: Path, clips: ClipStore, count: int) -> Tensor:
    """Features [n,layers,channels] of the sound of the first clips by the encoder in `folder`."""
    encoder = Wav2Vec2Model.from_pretrained(folder, attn_implementation="sdpa").float().eval()
    rows = [sound_features(encoder, clips.samples[clip]).float().flatten(0, 1) for clip in range(count)]
    return torch.cat(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder with transformer and audio encoder")
    parser.add_argument("--audio", type=Path, required=True, help="the other audio encoder")
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300, help="clips to fit on")
    options = parser.parse_args(arguments)
    with reporting():
        clips = open_clips(options.clips)
        count = min(options.count, len(clips))
        new = features_of(options.audio, clips, count)
        matrix, bias, explained = fit_features(new, features_of(options.model / "audio_encoder", clips, count))
        old = LiveTalkTransformer3DModel.from_pretrained(options.model / "transformer", torch_dtype=torch.float32)
        refit(old, matrix, bias, new.shape[-1]).save_pretrained(options.out / "transformer")
        for part in ("image_encoder", "vae"):
            shutil.copytree(options.model / part, options.out / part, dirs_exist_ok=True)
        logger.info("%.1f %% of the old features explained", 100 * explained)


if __name__ == "__main__":
    main()
