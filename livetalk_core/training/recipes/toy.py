"""Both stages at the size of the embedded model, for two CPU cores."""

from __future__ import annotations

from typing import Final

from .settings import OptimizerConfig, RolloutConfig, RunConfig, Stage1Config, Stage2Config, TrainingRecipe

STAGE1: Final = TrainingRecipe(
    name="toy",
    about="Teach the embedded model all noise levels alike, now and then without speech: a teacher with guidance.",
    run=RunConfig(iterations=1000, batch=8, precision="bf16", save_every=50, log_every=20, sample_every=200),
    method=Stage1Config(
        optimizer=OptimizerConfig(learning_rate=3e-4, betas=(0.9, 0.98), warmup=20),
        drop_text=0.0, drop_all=0.15, face_weight=0.25, temporal_weight=0.25, ema_decay=0.995,
    ),
    size=(128, 128),
)  # fmt: skip

STAGE2: Final = TrainingRecipe(
    name="toy",
    about="Distil that teacher to 4 steps on the student's own motion frames: what ships.",
    run=RunConfig(iterations=360, batch=4, precision="bf16", save_every=30, log_every=6, sample_every=120),
    method=Stage2Config(
        student=OptimizerConfig(learning_rate=5e-5, betas=(0.0, 0.95), weight_decay=0.0, warmup=10),
        fake_score=OptimizerConfig(learning_rate=2e-4, betas=(0.0, 0.95), weight_decay=0.0, warmup=10),
        rollout=RolloutConfig(first_motion="reference", color_strength=0.3),
        text_guidance=1.0, audio_guidance=2.0, critic_updates=2, ema_decay=0.95,
    ),
    size=(128, 128),
)  # fmt: skip
