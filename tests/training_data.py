"""A prepared data set of random pictures and noise for the tiny model, and recipes that fit it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from livetalk_core.config import ChunkGeometry, SamplerConfig
from livetalk_core.loading import load_model, open_parts
from livetalk_core.training.data.prepare import prepare
from livetalk_core.training.data.raw import RawClip, Skipped, clip_frames, clip_samples
from livetalk_core.training.recipes import (
    OptimizerConfig,
    RolloutConfig,
    RunConfig,
    Stage1Config,
    Stage2Config,
    TrainingRecipe,
)

GEOMETRY = ChunkGeometry(frames=9, motion_frames=5, window_seconds=1)
OPTIMIZER = OptimizerConfig(learning_rate=1e-3, betas=(0.5, 0.9))


class RandomSource:
    """`ClipSource` of smooth random pictures; `failing` names a group that raises, as an interruption does."""

    def __init__(self, clips: int, chunks: int = 3, failing: str = "") -> None:
        self.groups = [f"clip-{number}" for number in range(clips)]
        self.chunks, self.failing = chunks, failing
        self.settings = f"chunks={chunks}"
        self.asked: list[str] = []
        self.stamps: dict[str, str] = {}

    def stamp(self, group: str) -> str:
        """As the test says."""
        return self.stamps.get(group, "")

    def clips(self, group: str) -> Iterator[RawClip | Skipped]:
        """One clip per group; group 9 has none."""
        self.asked.append(group)
        if group == self.failing:
            raise KeyboardInterrupt
        if group == "clip-9":
            yield Skipped(group, "silent")
            return
        rng = np.random.default_rng(int(group.removeprefix("clip-")))
        small = rng.integers(0, 256, (clip_frames(self.chunks, GEOMETRY) + 2, 8, 8, 3), dtype=np.uint8)
        pictures = small.repeat(8, axis=1).repeat(8, axis=2)
        sound = rng.normal(0, 0.1, clip_samples(self.chunks, GEOMETRY)).astype(np.float32)
        yield RawClip(group, pictures[2:], sound, pictures[:2], prompt=group[-1], face=(0.25, 0.25, 0.75, 0.75))


def write_prepared(folder: Path, model: Path, clips: int = 4, chunks: int = 3) -> Path:
    """Prepare random clips for the model in `model`."""
    bundle = load_model(model, "cpu", "fp32")
    prepare(RandomSource(clips, chunks), bundle, open_parts(model).encoders, folder)
    return folder


def recipe(stage: str, **changes: Any) -> TrainingRecipe:
    """A recipe for the tiny model; changes are of the run, or with method__ in front of the method."""
    method: Any = Stage1Config(
        optimizer=OPTIMIZER, face_weight=0.5, temporal_weight=0.5, ema_decay=0.9, drop_all=0.2, drop_text=0.2
    )
    if stage == "stage2":
        method = Stage2Config(
            student=OPTIMIZER, fake_score=OPTIMIZER, rollout=RolloutConfig(sampler=SamplerConfig(steps=2)),
            max_chunks=3, ema_decay=0.9, audio_guidance=2.0, text_guidance=1.5,
        )  # fmt: skip
    settings = {"iterations": 4, "batch": 2, "precision": "fp32", "save_every": 2, "log_every": 1}
    run = {key: value for key, value in changes.items() if not key.startswith("method__")}
    method_changes = {k.removeprefix("method__"): v for k, v in changes.items() if k.startswith("method__")}
    changed = msgspec.structs.replace(method, **method_changes)
    return TrainingRecipe(name="test", about="", run=RunConfig(**(settings | run)), method=changed)
