"""Which files make up a model: the published folder, our own, and single files in their place."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError
from .model_files import read_json
from .shards import find_shards

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).resolve().parent.parent / "assets" / "tiny"
MANIFEST = "livetalk.json"
TRANSFORMER_STEM = "diffusion_pytorch_model"

TEXT_FILES = (
    "models_t5_umt5-xxl-enc-bf16",
    "umt5_xxl_fp16",
    "umt5-xxl-enc-bf16",
    "umt5_xxl_fp8_e4m3fn_scaled",
)
IMAGE_FILES = (
    "models_clip_open-clip-xlm-roberta-large-vit-huge-14",
    "clip_vision_h",
    "open-clip-xlm-roberta-large-vit-huge-14_visual_fp16",
)
VAE_FILES = ("Wan2.1_VAE", "wan_2.1_vae", "Wan2_1_VAE_fp32", "Wan2_1_VAE_bf16")
"""Names, best first: the published file (converted), then ComfyUI's repackaged ones."""

AUDIO_FOLDER = "chinese-wav2vec2-base"
TOKENIZER_FOLDER = "google/umt5-xxl"

SHAPE_OF_A_MODEL = (
    f"A model folder holds either {MANIFEST} with transformer/, vae/, audio_encoder/ and image_encoder/, "
    f"or the published files: config.json, {TRANSFORMER_STEM}*.safetensors, "
    f"{TEXT_FILES[0]}.safetensors, {IMAGE_FILES[0]}.safetensors, "
    f"{VAE_FILES[0]}.safetensors, {TOKENIZER_FOLDER}/ and {AUDIO_FOLDER}/ (inside or beside it)."
)


@dataclass(frozen=True)
class ComponentFiles:
    """Where one module comes from; `config` is None where the shapes of the weights tell everything."""

    weights: tuple[Path, ...]
    config: Path | None = None


@dataclass(frozen=True)
class Replacements:
    """Files to use in place of a folder's own, for instance from ComfyUI's models folder.

    Attributes:
        vae: A safetensors file, published or diffusers names.
        image_encoder: A safetensors file, published or transformers names.
        text_encoder: A safetensors file, published or transformers names.
        audio_encoder: A wav2vec2 folder.
        tokenizer: A tokenizer folder.
    """

    vae: Path | None = None
    image_encoder: Path | None = None
    text_encoder: Path | None = None
    audio_encoder: Path | None = None
    tokenizer: Path | None = None


@dataclass(frozen=True)
class ModelFiles:
    """All files of a model.

    Attributes:
        kind: "published" or "livetalk" (our own layout).
        folder: The model folder.
        tokenizer: Tokenizer folder, or None for a model without text.
        text_encoder: None for a model without text.
        audio_folder: Holds config.json and preprocessor_config.json of the audio encoder.
    """

    kind: Literal["published", "livetalk"]
    folder: Path
    transformer: ComponentFiles
    vae: ComponentFiles
    image_encoder: ComponentFiles
    audio_encoder: ComponentFiles
    text_encoder: ComponentFiles | None
    tokenizer: Path | None

    @property
    def audio_preprocessor(self) -> Path:
        """Says whether the audio encoder wants normalised sound."""
        assert self.audio_encoder.config is not None
        return self.audio_encoder.config.with_name("preprocessor_config.json")


def find_model(path: str | Path | None, replacements: Replacements | None = None) -> ModelFiles:
    """Locate every file of a model.

    Args:
        path: A model folder; None or "embedded" for the model in the package.
        replacements: Files used in place of the folder's own.

    Raises:
        CheckpointError: no such folder, not a model, or an incomplete one, with everything that is missing.
    """
    folder = EMBEDDED_FOLDER if path is None or str(path) == EMBEDDED else Path(path)
    try:
        is_folder, exists = folder.is_dir(), folder.exists()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} is not a usable path ({error}).", SHAPE_OF_A_MODEL) from error
    if not is_folder:
        raise _unknown_folder(folder, exists)
    chosen = replacements or Replacements()
    if (folder / MANIFEST).exists():
        return _own_layout(folder, chosen)
    if find_shards(folder, TRANSFORMER_STEM) or any(_pickles(folder)):
        return _published_layout(folder, chosen)
    raise CheckpointError(
        f"{folder} is not a model folder: it holds neither {MANIFEST} nor {TRANSFORMER_STEM}*.safetensors."
        f"{_suggest(_models_in(folder))}",
        SHAPE_OF_A_MODEL,
        file=str(folder),
    )


def find_vae(path: Path) -> ComponentFiles:
    """A VAE that lies in one file: published names, or the library's, with their config.json beside it if need be.

    Raises:
        CheckpointError: there is no such file, or it is a pickle.
    """
    search = _Search(path.parent)
    weights = search.given(path)
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.", "Give a VAE's .safetensors file.", file=str(path))
    config = path.with_name("config.json")
    described = config.is_file() and read_json(config).get("_class_name") == "AutoencoderKLWan"
    return ComponentFiles((weights,), config if described else None)


def convert_command(path: Path) -> str:
    """The command that makes safetensors of the pickles in `path`."""
    return f"livetalk convert {shlex.quote(str(path))}"


def _unknown_folder(folder: Path, exists: bool) -> CheckpointError:
    if exists:
        return CheckpointError(f"{folder} is a file, not a model folder.", SHAPE_OF_A_MODEL, file=str(folder))
    parent = folder.parent
    siblings = sorted(p.name for p in parent.iterdir() if p.is_dir()) if parent.is_dir() else []
    near = difflib.get_close_matches(folder.name, siblings, n=3, cutoff=0.5)
    return CheckpointError(
        f"There is no model folder {folder}.{_suggest([str(parent / name) for name in near])}",
        f"{SHAPE_OF_A_MODEL} Without a model given, the embedded one is used.",
        file=str(folder),
    )


def looks_like_model(folder: Path) -> bool:
    """Whether a folder may be a model in either layout; not one that is not for us to look into."""
    try:
        return (folder / MANIFEST).is_file() or any(folder.glob(f"{TRANSFORMER_STEM}*.safetensors"))
    except OSError:
        return False


def _models_in(folder: Path) -> list[str]:
    return [str(child) for child in sorted(folder.iterdir()) if child.is_dir() and looks_like_model(child)][:3]


def _suggest(names: Sequence[str]) -> str:
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _pickles(folder: Path) -> list[Path]:
    names = (TEXT_FILES[0], IMAGE_FILES[0], VAE_FILES[0])
    return [folder / f"{name}.pth" for name in names if (folder / f"{name}.pth").is_file()]


class _Search:
    """Collects what is missing, so that one error can list all of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.missing: list[str] = []
        self.pickled: list[Path] = []

    def existing(self, path: Path) -> Path:
        if not path.exists():
            self.missing.append(str(path))
        return path

    def shards(self, folder: Path, stem: str) -> tuple[Path, ...]:
        found = find_shards(folder, stem) if folder.is_dir() else []
        if not found:
            self.missing.append(f"{folder / stem}*.safetensors")
        return tuple(found)

    def single(self, given: Path | None, names: Sequence[str]) -> ComponentFiles:
        """The file the user gave, or the first of the known names that is there."""
        if given is not None:
            return ComponentFiles((self.given(given),))
        for name in names:
            if (self.folder / f"{name}.safetensors").exists():
                return ComponentFiles((self.folder / f"{name}.safetensors",))
        pickle = self.folder / f"{names[0]}.pth"
        if pickle.is_file():
            self.pickled.append(pickle)
        else:
            self.missing.append(f"{self.folder / names[0]}.safetensors (or {', '.join(names[1:])})")
        return ComponentFiles(())

    def given(self, path: Path) -> Path:
        if path.suffix in (".pth", ".pt", ".bin", ".ckpt") and path.is_file():
            raise CheckpointError(
                f"{path} is a pickle, which is never opened while LiveTalk runs.",
                f"Convert it once: {convert_command(path)}",
                file=str(path),
            )
        return self.existing(path)

    def audio(self, candidates: Sequence[Path]) -> ComponentFiles:
        """The audio encoder's weights in the first of these folders that is there."""
        folder = next((folder for folder in candidates if folder.is_dir()), candidates[0])
        stems = ("model", TRANSFORMER_STEM)
        weights = next((found for stem in stems if folder.is_dir() and (found := find_shards(folder, stem))), [])
        if not weights and (folder / "pytorch_model.bin").is_file():
            self.pickled.append(folder / "pytorch_model.bin")
        elif not weights:
            self.missing.append(str(folder / "model.safetensors"))
        self.existing(folder / "preprocessor_config.json")
        return ComponentFiles(tuple(weights), self.existing(folder / "config.json"))

    def finish(self) -> None:
        """Raise one error about everything that is missing or still a pickle."""
        if self.missing:
            raise CheckpointError(
                f"{self.folder} is an incomplete model. Missing: {'; '.join(self.missing)}.",
                "Complete the download. " + SHAPE_OF_A_MODEL,
                file=str(self.folder),
                missing=self.missing,
            )
        if self.pickled:
            names = ", ".join(path.name for path in self.pickled)
            outside = [path for path in self.pickled if not path.is_relative_to(self.folder)]
            commands = [convert_command(self.folder)] if len(outside) < len(self.pickled) else []
            commands += [convert_command(path) for path in outside]
            raise CheckpointError(
                f"{self.folder} still holds pickles, which are never opened while LiveTalk runs: {names}.",
                f"Convert them once: {' && '.join(commands)}",
                file=str(self.pickled[0]),
            )


def _published_layout(folder: Path, chosen: Replacements) -> ModelFiles:
    search = _Search(folder)
    beside = [folder / AUDIO_FOLDER, folder.absolute().parent / AUDIO_FOLDER]
    files = ModelFiles(
        kind="published",
        folder=folder,
        transformer=ComponentFiles(search.shards(folder, TRANSFORMER_STEM), search.existing(folder / "config.json")),
        vae=search.single(chosen.vae, VAE_FILES),
        image_encoder=search.single(chosen.image_encoder, IMAGE_FILES),
        audio_encoder=search.audio([chosen.audio_encoder] if chosen.audio_encoder else beside),
        text_encoder=search.single(chosen.text_encoder, TEXT_FILES),
        tokenizer=search.existing(chosen.tokenizer or folder / TOKENIZER_FOLDER),
    )
    search.finish()
    return files


def _own_layout(folder: Path, chosen: Replacements) -> ModelFiles:
    search = _Search(folder)

    def part(name: str, given: Path | None = None) -> ComponentFiles:
        if given is not None:
            return ComponentFiles((search.given(given),))
        stem = TRANSFORMER_STEM if name in ("transformer", "vae") else "model"
        return ComponentFiles(search.shards(folder / name, stem), search.existing(folder / name / "config.json"))

    has_text = (folder / "text_encoder").is_dir() or chosen.text_encoder is not None
    files = ModelFiles(
        kind="livetalk",
        folder=folder,
        transformer=part("transformer"),
        vae=part("vae", chosen.vae),
        image_encoder=part("image_encoder", chosen.image_encoder),
        audio_encoder=search.audio([chosen.audio_encoder or folder / "audio_encoder"]),
        text_encoder=part("text_encoder", chosen.text_encoder) if has_text else None,
        tokenizer=search.existing(chosen.tokenizer or folder / "tokenizer") if has_text else None,
    )
    search.finish()
    return files
