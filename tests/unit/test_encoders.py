"""What the encoders are shown and which of their states are used."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

from livetalk_core.errors import CheckpointError
from livetalk_core.models.encoders import (
    clean_prompt,
    clip_pixels,
    encode_text,
    image_features,
    load_tokenizer,
    text_features,
)
from livetalk_core.models.library_names import image_prefix

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def text_encoder() -> UMT5EncoderModel:
    torch.manual_seed(0)
    config = UMT5Config(
        vocab_size=12, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
    )  # fmt: skip
    return UMT5EncoderModel(config).eval()


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    words = ["<pad>", "</s>", "<unk>", "A", "person", "is", "talking", "."]
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(WordLevel(vocabulary, special["unk_token"]))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path)
    return tmp_path


def test_clip_pixels_of_flat_colours() -> None:
    """Resizing keeps a constant; the rest is CLIP's published normalisation."""
    white = clip_pixels(torch.ones(1, 3, 6, 10), 4)
    expected = [
        (1 - m) / s
        for m, s in zip(
            (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), strict=True
        )
    ]
    assert white.shape == (1, 3, 4, 4)
    torch.testing.assert_close(white[0, :, 1, 2], torch.tensor(expected))


def test_clip_pixels_ignore_the_aspect_ratio_and_do_not_antialias() -> None:
    tall = torch.linspace(-1, 1, 64).view(1, 1, 64, 1).expand(1, 3, 64, 8)
    rows = clip_pixels(tall, 8)[0, 0, :, 0]
    assert rows.shape == (8,) and bool((rows.diff() > 0).all())
    # Output row 1 lies at input row 11.5 and sees four rows around it; averaging would let row 0 in.
    changed = tall.clone()
    changed[:, :, 0] = 5
    torch.testing.assert_close(clip_pixels(changed, 8)[0, 0, 1:, 0], rows[1:])


@pytest.mark.parametrize(("size", "patch"), [(8, 4), (12, 3)])
def test_image_features_are_the_second_to_last_states(size: int, patch: int) -> None:
    torch.manual_seed(0)
    model = CLIPVisionModel(
        CLIPVisionConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
                         image_size=size, patch_size=patch)
    ).eval()  # fmt: skip
    image = torch.rand(2, 3, 10, 14) * 2 - 1
    features = image_features(model, image)
    assert features.shape == (2, 1 + (size // patch) ** 2, 16)
    shorter = copy.deepcopy(model)
    del shorter.get_submodule(f"{image_prefix()}encoder").layers[-1]
    with torch.no_grad():
        expected = shorter(clip_pixels(image, size)).last_hidden_state
    torch.testing.assert_close(features, expected)


def test_clean_prompt() -> None:
    assert clean_prompt("  A&amp;amp;B \n\t talks&quot; cafÃ©  ") == 'A&B talks" café'


def test_text_is_encoded_at_its_real_length(text_encoder: UMT5EncoderModel, tokenizer_folder: Path) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    states = encode_text(text_encoder, tokenizer, " A person\n is talking. ", text_length=16)
    assert states.shape == (1, 6, 16) and not states.requires_grad
    ids = torch.tensor([[3, 4, 5, 6, 7, 1] + [0] * 10])
    with torch.no_grad():
        padded = text_features(text_encoder, ids, (ids != 0).long())
    torch.testing.assert_close(states, padded[:, :6])


def test_long_prompt_is_cut_with_a_warning(
    text_encoder: UMT5EncoderModel, tokenizer_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = load_tokenizer(tokenizer_folder)
    with caplog.at_level(logging.WARNING, logger="livetalk"):
        states = encode_text(text_encoder, tokenizer, "person " * 30, text_length=8)
    assert states.shape == (1, 8, 16)
    assert "31 tokens" in caplog.text


def test_tokenizer_is_never_fetched(tmp_path: Path) -> None:
    for folder in (tmp_path / "google" / "umt5-xxl", tmp_path):
        with pytest.raises(CheckpointError, match="no usable tokenizer"):
            load_tokenizer(folder)
