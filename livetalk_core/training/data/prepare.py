"""From a source of clips to a prepared data set: resumable, with counted reasons for what is left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ...config import Settings
from ...errors import TrainingError
from ...loading.atomic_files import unwritable, write_json, write_safetensors
from ...media import make_folder
from ...models.bundle import ModelBundle
from .encode import encode_clip, encode_texts
from .prepared import FORMAT, INDEX, TEXTS, ClipEntry, DatasetIndex, count_reasons
from .raw import ClipSource, RawClip, Skipped
from .shards import ShardWriter

Progress = Callable[[int, int, str], None]
"""(groups done, groups in all, name of the group that is next)."""

GROUPS_PER_SHARD = 8
NEGATIVE_PROMPT = "frozen picture, blurred, overexposed, distorted face, deformed hands, subtitles, restless background"


class _Part(Settings, frozen=True, kw_only=True):
    """What one finished piece of work gave: kept beside its shards, so that an interrupted run goes on after it."""

    encoders: str
    settings: str = ""
    groups: tuple[str, ...]
    stamps: tuple[str, ...] = ()
    clips: tuple[ClipEntry, ...]
    prompts: tuple[str, ...]
    skipped: tuple[str, ...]


def prepare(
    source: ClipSource,
    bundle: ModelBundle,
    encoders: str,
    folder: Path,
    progress: Progress | None = None,
    negative: str = NEGATIVE_PROMPT,
) -> DatasetIndex:
    """Encode all clips of a source into `folder`.

    What an earlier, interrupted call finished is kept, unless its videos, or what lies beside them, have changed since.

    Args:
        source: Clips.
        bundle: The model whose encoders the training will use.
        encoders: Their fingerprint, from `open_parts`.
        folder: Made if needed.
        progress: Told before every group.
        negative: Prompt of the teacher's unconditional pass.

    Raises:
        TrainingError: the folder holds data of other encoders, of another source or of other settings.
        OutputError: a shard cannot be written.
    """
    make_folder(folder)
    groups = source.groups
    parts: list[_Part] = []
    for number, first in enumerate(range(0, len(groups), GROUPS_PER_SHARD)):
        names = tuple(groups[first : first + GROUPS_PER_SHARD])
        path = folder / f"part_{number:05d}.json"
        stamps = tuple(source.stamp(name) for name in names)
        part = _finished(path, encoders, source.settings, names, stamps) if path.is_file() else None
        if part is None:
            # Neither may name what is about to be overwritten.
            _remove(path, folder / INDEX)
            part = _encode_part(source, bundle, folder, number, names, encoders, len(groups), progress)
            part = msgspec.structs.replace(part, stamps=stamps)
            write_json(path, msgspec.to_builtins(part))
        parts.append(part)
    return _finish(folder, bundle, encoders, parts, negative)


def _encode_part(
    source: ClipSource, bundle: ModelBundle, folder: Path, number: int, names: tuple[str, ...], encoders: str,
    total: int, progress: Progress | None,
) -> _Part:  # fmt: skip
    shards = ShardWriter(folder, number)
    entries: list[dict[str, Any]] = []
    prompts: list[str] = []
    skipped: list[str] = []
    for done, group in enumerate(names):
        if progress is not None:
            progress(number * GROUPS_PER_SHARD + done, total, group)
        for clip in source.clips(group):
            if isinstance(clip, Skipped):
                skipped.append(clip.reason)
                continue
            if clip.prompt not in prompts:
                prompts.append(clip.prompt)
            entries.append(_add(shards, clip, bundle, prompts.index(clip.prompt)))
    shards.flush()
    clips = tuple(ClipEntry(**entry) for entry in entries)
    return _Part(
        encoders=encoders, settings=source.settings, groups=names, clips=clips, prompts=tuple(prompts),
        skipped=tuple(skipped),
    )  # fmt: skip


def _remove(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(path, error) from error


def _add(shards: ShardWriter, clip: RawClip, bundle: ModelBundle, prompt: int) -> dict[str, Any]:
    tensors = encode_clip(bundle, clip)
    bucket = f"{clip.size[0]}x{clip.size[1]}"
    return {
        "name": clip.name, "shard": shards.add(bucket, clip.name, tensors), "bucket": bucket,
        "chunks": len(tensors["latents"]), "references": len(tensors["references"]), "prompt": prompt,
        "face": clip.face,
    }  # fmt: skip


def _finished(
    path: Path, encoders: str, settings: str, names: tuple[str, ...], stamps: tuple[str, ...]
) -> _Part | None:
    """What is there already; None where it was made of files that have changed.

    Raises:
        TrainingError: it is damaged, or of another kind.
    """
    try:
        part = msgspec.json.decode(path.read_bytes(), type=_Part)
    except (OSError, msgspec.DecodeError) as error:
        raise TrainingError(f"{path} is damaged ({error}).", "Delete it, and its clips are encoded again.") from error
    if part.encoders != encoders:
        raise TrainingError(
            f"{path.parent} was prepared with the encoders of another model.", "Choose an empty folder.", file=str(path)
        )
    # Data of the time before settings were kept have none.
    if part.settings not in ("", settings):
        raise TrainingError(
            f"{path.parent} was prepared with {part.settings}, not {settings}.",
            "Prepare with the same settings, or into an empty folder.", file=str(path),
        )  # fmt: skip
    if part.groups != names:
        raise TrainingError(
            f"{path} holds other videos than this source has at that place.",
            "Videos were added or removed: prepare into an empty folder.", file=str(path),
        )  # fmt: skip
    # Data of the time before stamps were kept have none.
    return part if part.stamps in ((), stamps) else None


def _finish(folder: Path, bundle: ModelBundle, encoders: str, parts: list[_Part], negative: str) -> DatasetIndex:
    """Join the parts: prompts get numbers that hold for the whole set."""
    prompts = list(dict.fromkeys(prompt for part in parts for prompt in part.prompts)) or [""]
    clips = [
        msgspec.structs.replace(clip, prompt=prompts.index(part.prompts[clip.prompt]))
        for part in parts
        for clip in part.clips
    ]
    texts = encode_texts(bundle, [prompt or bundle.defaults.prompt for prompt in prompts], negative)
    write_safetensors(folder / TEXTS, texts)
    skipped = count_reasons([reason for part in parts for reason in part.skipped])
    index = DatasetIndex(
        format=FORMAT, encoders=encoders, geometry=bundle.defaults.geometry, prompts=tuple(prompts),
        clips=tuple(clips), skipped=skipped,
    )  # fmt: skip
    write_json(folder / INDEX, msgspec.to_builtins(index))
    return index
