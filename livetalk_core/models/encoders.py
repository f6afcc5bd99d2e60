"""What the image and text encoders see, and which of their states the transformer is conditioned on."""

from __future__ import annotations

import html
import logging
import re
from pathlib import Path
from typing import Any

import ftfy
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, CLIPVisionModel, UMT5EncoderModel

from ..errors import CheckpointError

logger = logging.getLogger("livetalk")

TEXT_LENGTH = 512
"""Rows of text context the published transformer takes."""

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(image: Tensor, size: int) -> Tensor:
    """What the image encoder sees of a picture (open-clip XLM-R ViT-H/14).

    Args:
        image: ``[B, 3, H, W]`` in [-1, 1].
        size: Side of the encoder's square input.

    Returns:
        float32 ``[B, 3, size, size]``: resized bicubically without antialiasing, whatever the aspect ratio,
        then normalised with CLIP's mean and deviation.
    """
    resized = F.interpolate(image.float(), size=(size, size), mode="bicubic", align_corners=False)
    mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in (_CLIP_MEAN, _CLIP_STD))
    return ((resized * 0.5 + 0.5) - mean) / std


@torch.no_grad()
def image_features(model: CLIPVisionModel, image: Tensor) -> Tensor:
    """Tokens of a picture ``[B, 3, H, W]`` in [-1, 1]: the second-to-last layer's states ``[B, n, dim]``.

    n is one class token and one per patch; the states carry no final norm.
    """
    pixels = clip_pixels(image, model.config.image_size).to(model.device, model.dtype)
    states: Tensor = model(pixels, output_hidden_states=True).hidden_states[-2]
    return states


def load_tokenizer(folder: str | Path) -> Any:
    """The text encoder's tokenizer from a local folder; never from the network, never running its code.

    Raises:
        CheckpointError: if the folder holds no usable tokenizer.
    """
    try:
        if not Path(folder).is_dir():
            raise OSError("there is no such folder")
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        # Tokenizer files are read by three libraries with error classes of their own.
        raise CheckpointError(
            f"{folder} holds no usable tokenizer ({error}).",
            "It needs tokenizer_config.json and tokenizer.json or spiece.model.",
            file=str(folder),
        ) from error


def clean_prompt(prompt: str) -> str:
    """The prompt with Unicode repaired, HTML entities (also doubled) resolved and white space collapsed."""
    text = html.unescape(html.unescape(ftfy.fix_text(prompt)))
    return re.sub(r"\s+", " ", text).strip()


def text_features(model: UMT5EncoderModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Encoder states ``[B, L, dim]`` of token ids and their mask (1 real, 0 padding), both ``[B, L]``."""
    device = model.device
    states: Tensor = model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    return states


@torch.no_grad()
def encode_text(
    model: UMT5EncoderModel, tokenizer: Any, prompt: str, text_length: int = TEXT_LENGTH
) -> Tensor:
    """Encoder states of a prompt, ``[1, l, dim]``: l tokens, the end token included, at most text_length.

    The published code pads to the full length, masks the padding and trims its rows again; without padding
    the states are the same for a fraction of the work.
    """
    tokens = tokenizer(clean_prompt(prompt), return_tensors="pt", add_special_tokens=True)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    if ids.shape[1] > text_length:
        logger.warning("the prompt has %d tokens; only the first %d are used", ids.shape[1], text_length)
        tokens = tokenizer(clean_prompt(prompt), return_tensors="pt", truncation=True, max_length=text_length)
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
    return text_features(model, ids, mask)
