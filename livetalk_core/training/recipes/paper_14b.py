"""The paper's two stages for the 14B model on eight GPUs of 80 GB.

Numbers that the paper gives are the paper's; the others are those of the public reproduction
(nanxiaolu/FlashTalk-Training-Code).
"""

from __future__ import annotations

from typing import Final

from .settings import OptimizerConfig, RunConfig, Stage1Config, Stage2Config, TrainingRecipe

STAGE1: Final = TrainingRecipe(
    name="paper-14b",
    about="Latency-aware adaptation of the 14B model: 33-frame clips at reduced resolution in aspect buckets.",
    run=RunConfig(
        iterations=1000, batch=32, accumulate=4, checkpoint_activations=True, save_every=100, sample_every=250
    ),
    method=Stage1Config(
        optimizer=OptimizerConfig(learning_rate=2e-6, betas=(0.9, 0.99), weight_decay=0.01, clip=1.0),
        flow_weight=0.75, face_weight=0.75, temporal_weight=0.25,
    ),
    world=8,
)  # fmt: skip

STAGE2: Final = TrainingRecipe(
    name="paper-14b",
    about="Self-correcting bidirectional distillation of the 14B model to 4 steps without guidance.",
    run=RunConfig(
        # 200 updates of the student and as many of the fake score.
        iterations=400, batch=32, accumulate=4, checkpoint_activations=True, offload=True, save_every=50,
        sample_every=100,
    ),
    method=Stage2Config(
        student=OptimizerConfig(learning_rate=2e-6, betas=(0.9, 0.95), weight_decay=0.01, clip=10.0),
        fake_score=OptimizerConfig(learning_rate=4e-7, betas=(0.9, 0.99), weight_decay=0.01, clip=10.0),
        max_chunks=5, text_guidance=3.0, audio_guidance=4.0,
    ),
    world=8,
)  # fmt: skip
