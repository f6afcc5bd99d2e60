"""Both stages at 64x64, for experiments that train many students on a CPU core: the self-correction ablation.

The students' first weights begin with random ones and see true motion frames only: the embedded model's have met their
own motion frames and noisy ones, so a student made of them would hold out whatever stage 2 did. The teacher goes on
from them with disturbed motion frames.
"""

from __future__ import annotations

from typing import Final

from .settings import OptimizerConfig, RolloutConfig, RunConfig, Stage1Config, Stage2Config, TrainingRecipe

STAGE1: Final = TrainingRecipe(
    name="toy-64",
    about="Teach a transformer from nothing at 64x64, on true motion frames only: what the ablation begins with.",
    run=RunConfig(iterations=1500, batch=8, precision="fp32", save_every=100, log_every=20, sample_every=500),
    method=Stage1Config(
        optimizer=OptimizerConfig(learning_rate=1.5e-3, betas=(0.9, 0.98), warmup=50),
        drop_text=0.0, drop_all=0.1, face_weight=0.25, temporal_weight=0.25, ema_decay=0.995, fresh=True,
    ),
    size=(64, 64),
)  # fmt: skip

TEACHER: Final = TrainingRecipe(
    name="toy-64-teacher",
    about="Go on with disturbed motion frames, so that the teacher finds back to the reference from drifted ones.",
    run=RunConfig(iterations=500, batch=8, precision="fp32", save_every=100, log_every=20, sample_every=500),
    method=Stage1Config(
        optimizer=OptimizerConfig(learning_rate=7e-4, betas=(0.9, 0.98), warmup=20),
        drop_text=0.0, drop_all=0.1, face_weight=0.25, temporal_weight=0.25, ema_decay=0.99, motion_noise=1.0,
    ),
    size=(64, 64),
)  # fmt: skip

STAGE2: Final = TrainingRecipe(
    name="toy-64",
    about="Distil that teacher to 4 steps on its own motion frames, at 64x64.",
    run=RunConfig(iterations=160, batch=2, precision="fp32", save_every=20, keep=1, log_every=10),
    method=Stage2Config(
        student=OptimizerConfig(learning_rate=3e-4, betas=(0.0, 0.95), weight_decay=0.0, warmup=5),
        fake_score=OptimizerConfig(learning_rate=5e-4, betas=(0.0, 0.95), weight_decay=0.0, warmup=5),
        rollout=RolloutConfig(color_strength=0.0),
        text_guidance=1.0, audio_guidance=1.5, critic_updates=1, ema_decay=0.9,
    ),
    size=(64, 64),
)  # fmt: skip
