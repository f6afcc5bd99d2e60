"""Rendered training clips on disk: frames, reference pictures, sound and mouth tracks of many drawn people.

Recipe: `python -m livetalk_core.training.embedded.clips --bank FILE --out DIR`.

A clip is 61 frames, two chunks that overlap by the motion frames, at the end of 9.12 s of sound: the first chunk's
audio window is samples [0, 128000), the second's starts 28 frames later.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...config import ChunkGeometry
from ...errors import TrainingError
from ...loading.atomic_files import require_space
from ...media import make_folder, write_atomic
from ..avatars.avatar import Identity, reference_frame, render_clip
from ..avatars.identity import require_trainable
from ..avatars.motion import motion_track
from ..speech.audio_clips import compose
from ..speech.bank import SpeechBank, load_bank
from .command_line import reporting

SIZE = 128
CHUNKS = 2
_GEOMETRY = ChunkGeometry()
VIDEO_FRAMES = _GEOMETRY.frames + (CHUNKS - 1) * _GEOMETRY.slice_frames
AUDIO_FRAMES = _GEOMETRY.window_frames + (CHUNKS - 1) * _GEOMETRY.slice_frames
_ARRAYS = ("frames", "references", "samples", "mouths", "blinks")


@dataclass(frozen=True)
class ClipStore:
    """Memory-mapped clips.

    Attributes:
        frames: uint8 [N, 61, 128, 128, 3].
        references: uint8 [N, 128, 128, 3], the same person at rest.
        samples: float16 [N, 228 * 640].
        mouths: float32 [N, 228, 4]; the video frames are the last 61.
        blinks: float32 [N, 61], how far the eyes are closed in each video frame.
    """

    frames: NDArray[np.uint8]
    references: NDArray[np.uint8]
    samples: NDArray[np.float16]
    mouths: NDArray[np.float32]
    blinks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.frames)


_worker_bank: SpeechBank | None = None


def _start_worker(bank_path: str) -> None:
    global _worker_bank
    _worker_bank = load_bank(Path(bank_path))


def render_one(bank: SpeechBank, seed: int) -> tuple[NDArray[Any], ...]:
    """Frames, reference, samples, mouth track and blinks of the clip with this seed."""
    rng = np.random.default_rng([seed, 61])
    identity = Identity.from_seed(seed)
    samples, mouth = compose(bank, rng, AUDIO_FRAMES)
    motion = motion_track(rng, mouth, liveliness=float(rng.uniform(0.5, 1.1)))
    motion = motion[-VIDEO_FRAMES:]
    frames = render_clip(identity, mouth[-VIDEO_FRAMES:], motion, SIZE)
    return frames, reference_frame(identity, rng, SIZE), samples.astype(np.float16), mouth, motion[:, 3]


def _render_job(seed: int) -> tuple[NDArray[Any], ...]:
    assert _worker_bank is not None
    return render_one(_worker_bank, seed)


def render_clips(bank_path: Path, folder: Path, count: int, first_seed: int = 0, workers: int = 2) -> ClipStore:
    """Render `count` clips of seeds first_seed, first_seed+1, ... into `folder` and open them.

    Raises:
        ConfigError: seeds of held-out people.
        OutputError: the folder cannot be written, or has no room for them.
    """
    require_trainable(first_seed, count)
    make_folder(folder)
    shapes: dict[str, tuple[tuple[int, ...], type]] = {
        "frames": ((count, VIDEO_FRAMES, SIZE, SIZE, 3), np.uint8),
        "references": ((count, SIZE, SIZE, 3), np.uint8),
        "samples": ((count, AUDIO_FRAMES * _GEOMETRY.samples_per_frame), np.float16),
        "mouths": ((count, AUDIO_FRAMES, 4), np.float32),
        "blinks": ((count, VIDEO_FRAMES), np.float32),
    }
    require_space(folder, sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values()))
    # Without it these are no clips, whatever is overwritten.
    (folder / "clips.json").unlink(missing_ok=True)
    arrays = [
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, shape) for name, (shape, dtype) in shapes.items()
    ]
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (str(bank_path),)) as pool:
        for row, parts in enumerate(pool.imap(_render_job, range(first_seed, first_seed + count), 4)):
            for array, part in zip(arrays, parts, strict=True):
                array[row] = part
    for array in arrays:
        array.flush()
    facts = {"count": count, "first_seed": first_seed, "size": SIZE, "video_frames": VIDEO_FRAMES}
    write_atomic(folder / "clips.json", json.dumps(facts, indent=1))
    return open_clips(folder)


def open_clips(folder: Path) -> ClipStore:
    """Open clips made by `render_clips`.

    Raises:
        TrainingError: the folder holds no finished set of clips.
    """
    if not (folder / "clips.json").is_file():
        raise TrainingError(f"{folder} holds no finished clips (clips.json is missing).", "Render them first.")
    return ClipStore(*(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS))


def main(arguments: list[str] | None = None) -> None:
    """Command line of the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bank", type=Path, required=True, help="speech_bank.safetensors of the audio encoder's run")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=1500, help="clips, 3 MB each")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args(arguments)
    with reporting():
        render_clips(options.bank, options.out, options.count, workers=options.workers)


if __name__ == "__main__":
    main()
