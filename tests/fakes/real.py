"""Daemons of real ranks on a tiny model, and what one engine in this process makes of the same input."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fakes.daemons import TESTS
from fakes.faults import Fault, script
from livetalk_core.config import AudioConfig, ChunkGeometry, SamplerConfig, StreamConfig
from livetalk_core.daemon.client import DaemonConfig, RemoteStream
from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.engine import Chunk, Engine, generate
from livetalk_core.loading import load_model

GEOMETRY = ChunkGeometry(frames=9, motion_frames=5, window_seconds=1)
SLICE = GEOMETRY.slice_samples
STEPS = 3
CONFIG = StreamConfig(width=64, height=64, seed=3, geometry=GEOMETRY, sampler=SamplerConfig(steps=STEPS))
WHOLE = StreamConfig(
    width=64, height=64, seed=3, geometry=GEOMETRY, sampler=SamplerConfig(steps=STEPS), audio=AudioConfig(mode="whole")
)
PATIENT = Deadlines(start=90, load=90, first_chunk=60)


def real_config(root: Path, model: Path, *faults: Fault, world: int = 2, **fields: Any) -> DaemonConfig:
    """A daemon of real ranks, one thread each, in a folder of its own."""
    options = {"threads": "1", **({"faults": script(*faults)} if faults else {}), **fields.pop("options", {})}
    if faults:
        fields = {"worker": "fakes.faulty_worker", "worker_path": (TESTS,), **fields}
    return DaemonConfig(
        model=str(model), device="cpu", dtype="fp32", world_size=world, runtime_root=str(root), grace=0.3,
        options=options, **{"deadlines": PATIENT, **fields},
    )  # fmt: skip


def picture() -> bytes:
    """A colourful picture's file."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 64, 3), dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def speech(chunks: float, seed: int = 0) -> NDArray[np.float32]:
    """Sound for so many chunks."""
    return (np.random.default_rng(seed).standard_normal(int(chunks * SLICE)) * 0.1).astype(np.float32)


@lru_cache(maxsize=16)
def expected(model: Path, chunks: float, seed: int = 0, config: StreamConfig = CONFIG) -> list[Chunk]:
    """The chunks that an engine in this process makes of `speech(chunks, seed)`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        engine = Engine(load_model(model, "cpu", "fp32"))
        portrait = Image.open(io.BytesIO(picture()))
        return list(generate(engine, config, portrait, [speech(chunks, seed)]))
    finally:
        torch.set_num_threads(threads)


def sha(frames: Any) -> str:
    """Digest of frames."""
    return hashlib.sha256(np.ascontiguousarray(frames).tobytes()).hexdigest()


def read(stream: RemoteStream, timeout: float = 90) -> list[NDArray[np.uint8]]:
    """All frames of a stream, one array per chunk, each chunk in its turn."""
    shown: list[NDArray[np.uint8]] = []
    first = stream.chunk
    for number, chunk in enumerate(stream.chunks(timeout)):
        assert chunk.index == first + number
        shown.append(np.array(chunk.frames))
    return shown


def steps_until_left(log: str) -> list[int]:
    """For every chunk that a rank left, from its log: before which step after the one in which it heard of it."""
    found, heard = [], None
    for event, step in re.findall(r"(cancel_heard|chunk_left) .*?\"step\": (\d+)", log):
        if event == "cancel_heard":
            heard = int(step)
        elif heard is not None:
            found.append(int(step) - heard)
            heard = None
    return found


def off_by(ours: Sequence[Any], theirs: Sequence[Any]) -> tuple[float, int]:
    """Share of identical 8-bit values, and the largest difference."""
    a, b = (np.concatenate([np.asarray(each, dtype=np.int16) for each in parts]) for parts in (ours, theirs))
    assert a.shape == b.shape
    return float((a == b).mean()), int(np.abs(a - b).max())
