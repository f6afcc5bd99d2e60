"""`livetalk.json`, which describes a model in our own layout, and other settings of model folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..config import Settings
from ..errors import CheckpointError, ConfigError
from ..models.bundle import ModelDefaults
from .model_files import checkpoint_error, read_json

FORMAT = "livetalk"
VERSION = 1
MAX_CONFIG_NUMBER = 2**20
MAX_LAYERS = 512
MAX_CONFIG_ITEMS = 4096
SAMPLE_RATE = 16_000

PUBLISHED_NAME = "SoulX-FlashTalk-14B"
PUBLISHED_DEFAULTS = ModelDefaults(
    width=448,
    height=768,
    prompt="A person is talking. Only the foreground characters are moving, the background remains static.",
)
"""Settings of the published inference script."""


class Manifest(Settings, frozen=True, kw_only=True):
    """Contents of `livetalk.json`.

    Attributes:
        format: Always "livetalk".
        version: Of this description, not of the weights.
        name: Name of the model for people.
        license: SPDX name of the weights' licence.
        defaults: Settings the model was trained for.
        about: Where the weights come from, in a sentence or two.
    """

    name: str
    defaults: ModelDefaults
    license: str = ""
    about: str = ""
    format: str = FORMAT
    version: int = VERSION


def read_manifest(path: Path) -> Manifest:
    """Read and validate `livetalk.json`.

    Raises:
        CheckpointError: unreadable, unknown keys, values out of range, or a newer version.
    """
    plain = read_json(path)
    if plain.get("format") != FORMAT:
        raise checkpoint_error(
            path, f"has format {plain.get('format')!r}, not {FORMAT!r}", "Use a LiveTalk model folder."
        )
    if plain.get("version") != VERSION:
        raise checkpoint_error(
            path,
            f"has version {plain.get('version')!r}, this LiveTalk reads {VERSION}",
            "Update LiveTalk.",
        )
    return decode_setting(path, plain)


def decode_setting(path: Path, plain: Mapping[str, Any]) -> Manifest:
    """Validate the contents of a manifest; errors name the file."""
    try:
        return msgspec.convert(plain, type=Manifest, strict=True)
    except (msgspec.ValidationError, ConfigError) as error:
        raise checkpoint_error(path, f"is not valid ({error})", "Correct the setting.") from error


def read_model_config(path: Path) -> dict[str, Any]:
    """Read a module's config.json; sizes no model of this kind has are refused before anything is built.

    Raises:
        CheckpointError: unreadable or hostile.
    """
    config = read_json(path)
    _check_value(path, "", config, [0])
    return config


def _check_value(path: Path, name: str, value: Any, count: list[int]) -> None:
    count[0] += 1
    if count[0] > MAX_CONFIG_ITEMS:
        raise checkpoint_error(path, f"has more than {MAX_CONFIG_ITEMS} values", "Do not trust this file.")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_value(path, str(key), item, count)
    elif isinstance(value, list):
        for item in value:
            _check_value(path, name, item, count)
    elif isinstance(value, int) and not isinstance(value, bool):
        limit = MAX_LAYERS if "layers" in name or "res_blocks" in name else MAX_CONFIG_NUMBER
        if abs(value) > limit:
            raise checkpoint_error(path, f"sets {name} to {value}", f"Allowed: at most {limit}.", key=name)


def read_audio_normalise(path: Path) -> bool:
    """Whether the audio encoder wants zero mean and unit variance, from its preprocessor_config.json.

    Raises:
        CheckpointError: unreadable, or made for another sample rate.
    """
    config = read_json(path)
    rate = config.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise checkpoint_error(path, f"asks for {rate!r} samples per second", f"Use an encoder of {SAMPLE_RATE} Hz.")
    normalise = config.get("do_normalize", True)
    if not isinstance(normalise, bool):
        raise checkpoint_error(
            path, f"sets do_normalize to {normalise!r}", "Allowed: true or false.", key="do_normalize"
        )
    return normalise


def require_equal(what: str, ours: object, theirs: object, path: Path) -> None:
    """Two components must agree on a width.

    Raises:
        CheckpointError: they do not.
    """
    if ours != theirs:
        raise CheckpointError(
            f"{path}: {what}: the transformer expects {ours}, this file gives {theirs}.",
            "The file belongs to another model.",
            file=str(path),
        )
