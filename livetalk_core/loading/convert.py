"""`livetalk convert`: published pickles become safetensors once, offline (faults 25 and 35 of tests/faults/README.md).

Order of defence: sha256 against a list of known files, `weights_only=True` in a throw-away child process,
header checks of every weight file. The engine itself never opens a pickle.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch

from .. import __version__
from ..errors import CheckpointError, OutputError
from .atomic_files import replacing, require_space, write_json
from .layout import AUDIO_FOLDER
from .model_files import checkpoint_error, read_json, require_regular_file
from .safetensors_header import read_header

logger = logging.getLogger("livetalk")

RECORD = "convert.json"
KNOWN_HASHES = Path(__file__).with_name("known_hashes.json")
PICKLE_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt")
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_BLOCK = 4 * 1024**2
_SLOWEST_BYTES_PER_SECOND = 5 * 1024**2
_SAFE_TORCH = (2, 10)  # Earlier weights_only loaders have known holes (CVE-2026-24747).

Progress = Callable[[Path, int, int], None]
"""Called while hashing with (file, bytes done, bytes in all)."""


class ConversionRefused(CheckpointError):  # noqa: N818 - reads as what happened
    """The file is not on the list of known files, or it holds more than weights."""


class _KnownHashes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: int
    about: str
    hashes: dict[str, dict[str, str]]


@dataclass(frozen=True)
class Conversion:
    """What became of one pickle.

    Attributes:
        source: The pickle.
        target: The safetensors file.
        sha256: Of the pickle; of no file when `kept`.
        bytes: Size of the pickle.
        listed: Whether the hash is on the list of known files.
        tensors: Number of tensors.
        kept: The target was there before and was left alone.
    """

    source: str
    target: str
    sha256: str
    bytes: int
    listed: bool
    tensors: int
    kept: bool = False


def convert(
    path: Path,
    out: Path | None = None,
    *,
    accept_unlisted: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Conversion]:
    """Convert one pickle, or all pickles of a published model folder, to safetensors.

    Args:
        path: A .pth/.pt/.bin/.ckpt file or a folder.
        out: Target file, or folder for a folder; None writes beside the sources.
        accept_unlisted: Convert files whose hash is not on the list of known files.
        force: Write over existing results. Otherwise one file's result is refused and a folder's is kept.
        progress: Told how far the hashing is.

    Returns: one entry per pickle. `convert.json` beside each result records the same.

    Raises:
        CheckpointError: nothing to convert, or not a file of tensors.
        ConversionRefused: an unlisted hash without `accept_unlisted`, or a pickle that asks for code.
        OutputError: the result cannot be written.
    """
    if path.is_dir():
        return _convert_folder(path, out, accept_unlisted, force, progress)
    require_regular_file(path)
    target = (
        path.with_suffix(".safetensors") if out is None else out / f"{path.stem}.safetensors" if out.is_dir() else out
    )
    if target.exists() and not force:
        raise OutputError(f"{target} exists already.", "Pass --force to write over it.", file=str(target))
    return [_convert_one(path, target, accept_unlisted, progress)]


def sha256_of(path: Path, progress: Progress | None = None) -> str:
    """sha256 of a file, read block by block.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest, done, size = hashlib.sha256(), 0, require_regular_file(path)
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                done += len(block)
                if progress:
                    progress(path, done, size)
    except OSError as error:
        raise checkpoint_error(path, f"cannot be read ({error.strerror})", "Check the disk and permissions.") from error
    return digest.hexdigest()


def known_hashes(path: Path = KNOWN_HASHES) -> dict[str, dict[str, str]]:
    """The list of pickles known to be what their publishers released: sha256 -> file and origin."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=_KnownHashes).hashes
    except (OSError, msgspec.DecodeError) as error:
        raise checkpoint_error(path, f"is unreadable ({error})", "Install LiveTalk again.") from error


def _convert_folder(
    folder: Path, out: Path | None, accept_unlisted: bool, force: bool, progress: Progress | None
) -> list[Conversion]:
    sources = list(_pickles_of(folder))
    if not sources:
        raise CheckpointError(
            f"{folder} holds no {', '.join('*' + suffix for suffix in PICKLE_SUFFIXES)} file.",
            "Give the folder of the published model, or one of its files.",
            file=str(folder),
        )
    results = []
    for source, place in sources:
        target = (source.parent if out is None else out / place) / f"{source.stem}.safetensors"
        if source.name == "pytorch_model.bin":
            target = target.with_name("model.safetensors")
        if target.exists() and not force:
            tensors = len(read_header(target).entries)
            results.append(Conversion(str(source), str(target), "", source.stat().st_size, False, tensors, kept=True))
            continue
        results.append(_convert_one(source, target, accept_unlisted, progress))
    return results


def _pickles_of(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Pickles of the folder and of the audio encoder in or beside it, with their places under the result."""
    places = {folder: Path(), folder / AUDIO_FOLDER: Path(AUDIO_FOLDER)}
    if not (folder / AUDIO_FOLDER).is_dir():
        places[folder.absolute().parent / AUDIO_FOLDER] = Path(AUDIO_FOLDER)
    for directory, place in places.items():
        for source in sorted(directory.iterdir()) if directory.is_dir() else ():
            if source.suffix in PICKLE_SUFFIXES and source.is_file():
                yield source, place


def _convert_one(source: Path, target: Path, accept_unlisted: bool, progress: Progress | None) -> Conversion:
    before = os.stat(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target.parent} cannot be made ({error.strerror}).", "Choose another place.") from error
    digest = sha256_of(source, progress)
    listed = digest in known_hashes()
    if not listed and not accept_unlisted:
        raise ConversionRefused(
            f"{source} is not on the list of known files. Its sha256 is {digest}.",
            "Compare it with the hash its publisher shows, then pass --accept-unlisted.",
            file=str(source),
            sha256=digest,
        )
    require_space(target.parent, before.st_size)
    with replacing(target) as temporary:
        tensors = _run_worker(source, temporary, before.st_size)
        read_header(temporary)
        after = os.stat(source)
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (
            after.st_size,
            after.st_mtime_ns,
            after.st_ino,
        ):
            raise ConversionRefused(f"{source} changed while it was converted.", "Try again.", file=str(source))
    result = Conversion(str(source), str(target), digest, before.st_size, listed, tensors)
    _record(result)
    return result


def _run_worker(source: Path, target: Path, size: int) -> int:
    """Number of tensors the child process converted."""
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _SAFE_TORCH:
        logger.warning(
            "torch %s is below 2.10, whose reader of pickles is safer; convert only files you trust.",
            torch.__version__,
        )
    paths = [str(source.absolute()), str(target.absolute())]
    command = [sys.executable, "-m", "livetalk_core.loading.convert_worker", *paths]
    environment = {**os.environ, "PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONSAFEPATH": "1"}
    limit = 300 + size / _SLOWEST_BYTES_PER_SECOND
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=limit, cwd=_PACKAGE_ROOT, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise checkpoint_error(
            source, f"was not converted within {limit:.0f} s", "Check the disk and try again."
        ) from error
    except OSError as error:
        raise checkpoint_error(source, f"was not converted, no process could be started ({error})") from error
    return _answer(source, done)


def _answer(source: Path, done: subprocess.CompletedProcess[bytes]) -> int:
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        cause = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
        tail = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or [""]
        raise checkpoint_error(
            source,
            f"was not converted, the process ended with {cause} {tail[0][:200]}".rstrip(),
            "If memory ran out, close other programs and try again.",
        ) from error
    if "tensors" in answer:
        return int(answer["tensors"])
    message = str(answer.get("message", ""))
    if answer.get("refused") == "output":
        raise OutputError(message, str(answer.get("hint", "")), file=str(source))
    if answer.get("refused") == "pickle":
        raise ConversionRefused(
            f"{source} is refused: it holds more than weights. {message}",
            "Such a file could run code. Do not use it; get the weights from their publisher.",
            file=str(source),
        )
    raise checkpoint_error(source, f"was not converted: {message}", "Download or copy the file again.")


def _record(result: Conversion) -> None:
    """Add the conversion to `convert.json` beside the result."""
    path = Path(result.target).with_name(RECORD)
    record: dict[str, Any] = {"format": 1, "files": {}}
    if path.is_file():
        try:
            previous = read_json(path).get("files")
        except CheckpointError:
            previous = None
        record["files"] = previous if isinstance(previous, dict) else {}
    facts = {key: value for key, value in asdict(result).items() if key not in ("target", "kept")}
    facts["source"] = Path(result.source).name
    record["files"][Path(result.target).name] = {**facts, "livetalk": __version__, "torch": torch.__version__}
    write_json(path, record)
