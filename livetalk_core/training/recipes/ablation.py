"""The arms of the self-correction ablation: the toy stage 2 with one thing changed in each."""

from __future__ import annotations

from typing import Final

ARMS: Final[dict[str, tuple[str, ...]]] = {
    "K_max 5": ("method.max_chunks=5",),
    "K_max 3": ("method.max_chunks=3",),
    "K_max 1": ("method.max_chunks=1",),
    "teacher-forced": ("method.max_chunks=5", "method.rollout.motion=true"),
    "noisy teacher motion": ("method.max_chunks=5", "method.noisy_teacher_motion=true"),
    "motion alignment": ("method.max_chunks=5", "method.motion_alignment=1.0"),
}
"""Name -> changed settings. The first four are the paper's claim, the last two the reproduction's (reference 1.5)."""
