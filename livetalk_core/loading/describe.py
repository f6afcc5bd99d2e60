"""What a model says about itself, read without its weights."""

from __future__ import annotations

from pathlib import Path

from ..errors import CheckpointError
from .layout import MANIFEST, ModelFiles, Replacements, find_model
from .manifest import PUBLISHED_DEFAULTS, PUBLISHED_NAME, Manifest, read_manifest

RANDOM_PREFIX = "random:"


def describe_model(path: str | Path | None = None, replacements: Replacements | None = None) -> Manifest:
    """Name and defaults of a model; its files are looked for, none of its weights is read.

    Args:
        path: As for `load_model`.
        replacements: As for `load_model`.

    Raises:
        CheckpointError: no such model, an incomplete folder, an unusable description.
    """
    if isinstance(path, str) and path.startswith(RANDOM_PREFIX):
        return _describe_random(path.removeprefix(RANDOM_PREFIX))
    return manifest_of(find_model(path, replacements))


def manifest_of(files: ModelFiles) -> Manifest:
    """The description in a folder of our own layout, or the published settings for a published folder."""
    if files.kind == "livetalk":
        return read_manifest(files.folder / MANIFEST)
    return Manifest(name=files.folder.absolute().name or PUBLISHED_NAME, defaults=PUBLISHED_DEFAULTS)


def _describe_random(size: str) -> Manifest:
    # Late: this module is otherwise free of the model libraries.
    from .random_model import SIZES

    if size not in SIZES:
        known = ", ".join(RANDOM_PREFIX + name for name in SIZES)
        raise CheckpointError(f"There is no random model {RANDOM_PREFIX}{size}.", f"Known: {known}.")
    return Manifest(name=RANDOM_PREFIX + size, defaults=SIZES[size].defaults)
