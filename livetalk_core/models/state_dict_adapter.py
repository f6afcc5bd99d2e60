"""Translation of published parameter names to those of the library classes and back, one tensor at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from ..errors import CheckpointError
from .key_rules import Rule, Transform, audio_rules, image_rules, keep, text_rules, vae_rules
from .library_names import IMAGE_TOWER, image_prefix

Component = Literal["vae", "text_encoder", "image_encoder", "audio_encoder"]
Targets = list[tuple[str, Transform]]
"""Library names that one tensor of a file fills, each with the function that makes its value."""

_PLACEHOLDERS = {r"\{i\}": r"(?P<i>\d+)", r"\{p\}": r"(?P<p>weight|bias)"}


class StateDictAdapter:
    """Names of one file layout of one module.

    Needs names only, so a checkpoint can be streamed: ask `targets` for every tensor met, whatever the order.

    Args:
        rules: The tensors whose names differ.
        prefix: Taken off the file's names where present.
        library_prefix: In front of every name in the module.
        ignored: Regular expressions of names (without prefix) that the module has no use for.
        optional: Library names that a file may lack.
        others: Whether names that no rule covers are the library's own; otherwise they are unknown.
    """

    def __init__(
        self,
        rules: Iterable[Rule] = (),
        *,
        prefix: str = "",
        library_prefix: str = "",
        ignored: Iterable[str] = (),
        optional: Iterable[str] = (),
        others: bool = False,
    ) -> None:
        rules = tuple(rules)
        self.optional = frozenset(optional)
        self._prefix, self._library_prefix, self._others = prefix, library_prefix, others
        self._ignored = re.compile("|".join(ignored) or r"(?!)")
        self._forward = [(_pattern(rule.published), rule) for rule in rules]
        self._backward = [
            (_pattern(name), rule, index) for rule in rules for index, name in enumerate(rule.library)
        ]

    def ignored(self, name: str) -> bool:
        """Whether a tensor of the file is known and not needed."""
        return bool(self._ignored.fullmatch(name.removeprefix(self._prefix)))

    def targets(self, name: str) -> Targets | None:
        """The library tensors that the file's tensor ``name`` fills; None if this layout has no such name."""
        own = name.removeprefix(self._prefix)
        for pattern, rule in self._forward:
            if match := pattern.fullmatch(own):
                count, groups = len(rule.library), match.groupdict()
                return [
                    (self._library_prefix + library.format(**groups), partial(_share, rule.to_library, index, count))
                    for index, library in enumerate(rule.library)
                ]
        return [(self._library_prefix + own, keep)] if self._others else None

    def to_library(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A whole state dict under the library's names.

        Raises:
            CheckpointError: for a name this layout does not have.
        """
        result: dict[str, Tensor] = {}
        for name, tensor in state.items():
            if self.ignored(name):
                continue
            targets = self.targets(name)
            if targets is None:
                raise CheckpointError(
                    f"Unknown tensor {name!r}.", "The file belongs to another model.", key=name
                )
            result.update({target: transform(tensor) for target, transform in targets})
        return result

    def to_published(self, state: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """Library tensors, in any order -> tensors of this layout, each as soon as its parts are there.

        Raises:
            CheckpointError: for a name that has no place in this layout, or if parts are missing at the end.
        """
        waiting: dict[str, dict[int, Tensor]] = {}
        for name, tensor in state:
            if name in self.optional:
                continue
            published, rule, index = self._published(name)
            parts = waiting.setdefault(published, {})
            parts[index] = tensor
            if len(parts) == len(rule.library):
                del waiting[published]
                values = [parts[i] for i in range(len(parts))]
                whole = values[0] if len(values) == 1 else torch.cat(values)
                yield self._prefix + published, rule.to_published(whole)
        if waiting:
            raise CheckpointError(f"Parts of {sorted(waiting)[0]!r} are missing.", "Export a complete model.")

    def _published(self, name: str) -> tuple[str, Rule, int]:
        own = name.removeprefix(self._library_prefix)
        for pattern, rule, index in self._backward:
            if match := pattern.fullmatch(own):
                return rule.published.format(**match.groupdict()), rule, index
        if self._others:
            return own, Rule(own, (own,)), 0
        raise CheckpointError(
            f"Tensor {name!r} has no published name.", "It is no part of this model.", key=name
        )


def adapter_for(component: Component, names: Collection[str]) -> StateDictAdapter:
    """The adapter of a file with these tensor names: published, ComfyUI's repackaged, or the library's own.

    Raises:
        CheckpointError: if the names are those of no known layout of the component.
    """
    published, library = _SIGNATURES[component]
    if any(name in names for name in published):
        return published_adapter(component, names)
    if any(name in names for name in library):
        return _library_adapter(component)
    example = min(names, default="nothing")
    raise CheckpointError(
        f"These are not the weights of a known {component.replace('_', ' ')} (found e.g. {example!r}).",
        f"A published file has {published[0]!r}, a repackaged one {library[0]!r}.",
        key=example,
    )


def published_adapter(component: Component, names: Collection[str]) -> StateDictAdapter:
    """The published layout's adapter; ``names`` are the published or the library's (both directions)."""
    return _PUBLISHED[component](names)


def _text(_names: Collection[str]) -> StateDictAdapter:
    # The library shows the embedding under a second, tied name.
    return StateDictAdapter(text_rules(), optional=("encoder.embed_tokens.weight",))


def _image(names: Collection[str]) -> StateDictAdapter:
    prefix = "visual." if any(name.startswith("visual.") for name in names) else ""
    # The projection to the space shared with text, the text tower and the logit scale play no part here.
    ignored = ("head", r"textual\..*", "log_scale")
    return StateDictAdapter(image_rules(), prefix=prefix, library_prefix=image_prefix(), ignored=ignored)


def _vae(names: Collection[str]) -> StateDictAdapter:
    residuals = _count(names, r"decoder\.up_blocks\.0\.resnets\.(\d+)\..*")
    if residuals:
        levels = _count(names, r"decoder\.up_blocks\.(\d+)\..*")
    else:
        layers = _count(names, r"decoder\.upsamples\.(\d+)\..*")
        resamplers = _numbers(names, r"decoder\.upsamples\.(\d+)\.resample\..*")
        residuals = min(resamplers, default=layers)
        levels = (layers + 1) // (residuals + 1)
    return StateDictAdapter(vae_rules(residuals, levels))


def _audio(_names: Collection[str]) -> StateDictAdapter:
    # Heads of pre-training or recognition, and the vector that masks frames in training, are not used.
    heads = (r"quantizer\..*", r"project_(q|hid)\..*", r"lm_head\..*", "masked_spec_embed")
    return StateDictAdapter(
        audio_rules(), prefix="wav2vec2.", ignored=heads, optional=("masked_spec_embed",), others=True
    )


def _library_adapter(component: Component) -> StateDictAdapter:
    """Files that already use the library's names, such as ComfyUI's, may carry tensors of other parts."""
    if component == "image_encoder":
        rest = (r"(visual|text)_projection\..*", r"text_model\..*", "logit_scale", r".*\.position_ids")
        return StateDictAdapter(prefix=IMAGE_TOWER, library_prefix=image_prefix(), ignored=rest, others=True)
    if component == "text_encoder":
        parts = ("spiece_model", r"decoder\..*", r"lm_head\..*")
        return StateDictAdapter(ignored=parts, optional=("encoder.embed_tokens.weight",), others=True)
    return StateDictAdapter(others=True)


_PUBLISHED: dict[Component, Callable[[Collection[str]], StateDictAdapter]] = {
    "vae": _vae,
    "text_encoder": _text,
    "image_encoder": _image,
    "audio_encoder": _audio,
}
_SIGNATURES: dict[Component, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vae": (("decoder.conv1.weight",), ("decoder.conv_in.weight",)),
    "text_encoder": (("token_embedding.weight",), ("shared.weight", "encoder.embed_tokens.weight")),
    "image_encoder": (
        ("visual.cls_embedding", "cls_embedding"),
        (f"{IMAGE_TOWER}embeddings.class_embedding", "embeddings.class_embedding"),
    ),
    "audio_encoder": (
        ("wav2vec2.feature_projection.projection.weight", "feature_projection.projection.weight"),
        ("feature_projection.projection.weight",),
    ),
}  # fmt: skip
"""Names that give a layout away: published, library's own."""


def _pattern(template: str) -> re.Pattern[str]:
    expression = re.escape(template)
    for placeholder, group in _PLACEHOLDERS.items():
        expression = expression.replace(placeholder, group)
    return re.compile(expression)


def _share(transform: Transform, index: int, count: int, tensor: Tensor) -> Tensor:
    """Share ``index`` of ``count`` along axis 0, transformed."""
    return transform(tensor if count == 1 else tensor.chunk(count)[index])


def _numbers(names: Iterable[str], expression: str) -> set[int]:
    matches = (re.fullmatch(expression, name) for name in names)
    return {int(match[1]) for match in matches if match}


def _count(names: Iterable[str], expression: str) -> int:
    return len(_numbers(names, expression))
