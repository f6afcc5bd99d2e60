"""Parameter names of the published checkpoints against those of the library classes, one table per module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torch import Tensor

Transform = Callable[[Tensor], Tensor]


def keep(tensor: Tensor) -> Tensor:
    """The tensor as it is."""
    return tensor


class Rule(NamedTuple):
    """One published tensor and the library tensors it holds.

    Attributes:
        published: Name; ``{i}`` stands for a number, ``{p}`` for weight or bias.
        library: Names with the same placeholders; several share the published tensor evenly along axis 0.
        to_library: Applied to the published tensor (or its share).
        to_published: The inverse.
    """

    published: str
    library: tuple[str, ...]
    to_library: Transform = keep
    to_published: Transform = keep


def text_rules() -> Iterator[Rule]:
    """umT5 encoder -> `transformers.UMT5EncoderModel`."""
    block, attention = "encoder.block.{i}.layer.0", "encoder.block.{i}.layer.0.SelfAttention"
    feed_forward = "encoder.block.{i}.layer.1.DenseReluDense"
    names = {
        "token_embedding.weight": "shared.weight",
        "norm.weight": "encoder.final_layer_norm.weight",
        "blocks.{i}.norm1.weight": f"{block}.layer_norm.weight",
        "blocks.{i}.norm2.weight": "encoder.block.{i}.layer.1.layer_norm.weight",
        "blocks.{i}.pos_embedding.embedding.weight": f"{attention}.relative_attention_bias.weight",
        "blocks.{i}.ffn.gate.0.weight": f"{feed_forward}.wi_0.weight",
        "blocks.{i}.ffn.fc1.weight": f"{feed_forward}.wi_1.weight",
        "blocks.{i}.ffn.fc2.weight": f"{feed_forward}.wo.weight",
    }
    names |= {f"blocks.{{i}}.attn.{x}.weight": f"{attention}.{x}.weight" for x in "qkvo"}
    return (Rule(published, (library,)) for published, library in names.items())


def image_rules() -> Iterator[Rule]:
    """CLIP visual tower -> `transformers.CLIPVisionModel` without the prefix of its release."""
    layer = "encoder.layers.{i}"
    names = {
        "patch_embedding.weight": "embeddings.patch_embedding.weight",
        "pre_norm.{p}": "pre_layrnorm.{p}",
        "post_norm.{p}": "post_layernorm.{p}",
        "transformer.{i}.norm1.{p}": f"{layer}.layer_norm1.{{p}}",
        "transformer.{i}.norm2.{p}": f"{layer}.layer_norm2.{{p}}",
        "transformer.{i}.attn.proj.{p}": f"{layer}.self_attn.out_proj.{{p}}",
        "transformer.{i}.mlp.0.{p}": f"{layer}.mlp.fc1.{{p}}",
        "transformer.{i}.mlp.2.{p}": f"{layer}.mlp.fc2.{{p}}",
    }
    yield from (Rule(published, (library,)) for published, library in names.items())
    yield Rule("transformer.{i}.attn.to_qkv.{p}", tuple(f"{layer}.self_attn.{x}_proj.{{p}}" for x in "qkv"))
    yield Rule("cls_embedding", ("embeddings.class_embedding",), _flatten, partial(_lead, axes=2))
    yield Rule(
        "pos_embedding",
        ("embeddings.position_embedding.weight",),
        _drop_batch,
        partial(_lead, axes=1),
    )


def vae_rules(residuals: int, levels: int) -> Iterator[Rule]:
    """Wan2.1 VAE -> `diffusers.AutoencoderKLWan`.

    The published decoder numbers its layers through: every level has ``residuals`` residual blocks and, but
    for the last level, one upsampler.
    """
    yield Rule("conv1.{p}", ("quant_conv.{p}",))
    yield Rule("conv2.{p}", ("post_quant_conv.{p}",))
    for half in ("encoder", "decoder"):
        yield Rule(f"{half}.conv1.{{p}}", (f"{half}.conv_in.{{p}}",))
        yield Rule(f"{half}.head.0.gamma", (f"{half}.norm_out.gamma",))
        yield Rule(f"{half}.head.2.{{p}}", (f"{half}.conv_out.{{p}}",))
        yield from _residual(f"{half}.middle.0", f"{half}.mid_block.resnets.0")
        yield from _residual(f"{half}.middle.2", f"{half}.mid_block.resnets.1")
        attention = f"{half}.mid_block.attentions.0"
        yield Rule(f"{half}.middle.1.norm.gamma", (f"{attention}.norm.gamma",))
        yield Rule(f"{half}.middle.1.to_qkv.{{p}}", (f"{attention}.to_qkv.{{p}}",))
        yield Rule(f"{half}.middle.1.proj.{{p}}", (f"{attention}.proj.{{p}}",))
    yield from _residual("encoder.downsamples.{i}", "encoder.down_blocks.{i}")
    yield from _resample("encoder.downsamples.{i}", "encoder.down_blocks.{i}")
    for index in range(levels * (residuals + 1) - 1):
        level, position = divmod(index, residuals + 1)
        published, library = f"decoder.upsamples.{index}", f"decoder.up_blocks.{level}"
        if position < residuals:
            yield from _residual(published, f"{library}.resnets.{position}")
        else:
            yield from _resample(published, f"{library}.upsamplers.0")


def audio_rules() -> Iterator[Rule]:
    """wav2vec2's older spelling of the weight norm; every other name is the library's."""
    conv = "encoder.pos_conv_embed.conv"
    yield Rule(f"{conv}.weight_g", (f"{conv}.parametrizations.weight.original0",))
    yield Rule(f"{conv}.weight_v", (f"{conv}.parametrizations.weight.original1",))


def _residual(published: str, library: str) -> Iterator[Rule]:
    yield Rule(f"{published}.residual.0.gamma", (f"{library}.norm1.gamma",))
    yield Rule(f"{published}.residual.2.{{p}}", (f"{library}.conv1.{{p}}",))
    yield Rule(f"{published}.residual.3.gamma", (f"{library}.norm2.gamma",))
    yield Rule(f"{published}.residual.6.{{p}}", (f"{library}.conv2.{{p}}",))
    yield Rule(f"{published}.shortcut.{{p}}", (f"{library}.conv_shortcut.{{p}}",))


def _resample(published: str, library: str) -> Iterator[Rule]:
    for part in ("resample.1", "time_conv"):
        yield Rule(f"{published}.{part}.{{p}}", (f"{library}.{part}.{{p}}",))


def _flatten(tensor: Tensor) -> Tensor:
    return tensor.flatten()


def _drop_batch(tensor: Tensor) -> Tensor:
    return tensor.squeeze(0)


def _lead(tensor: Tensor, axes: int) -> Tensor:
    """``axes`` axes of length one in front."""
    return tensor[(None,) * axes]
