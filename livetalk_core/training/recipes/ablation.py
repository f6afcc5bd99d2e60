"""The arms of the self-correction ablation: a stage 2 recipe with one thing changed in each."""

from __future__ import annotations

from typing import Final

FIRST: Final = "not distilled"
"""The students' first weights, which roll out as they are."""
TEACHER: Final = "teacher"
"""The teacher, where it has other weights than the students began with; in the students' steps, without guidance."""
REFERENCE_ARM: Final = "K_max 5"

ARMS: Final[dict[str, tuple[str, ...]]] = {
    REFERENCE_ARM: ("method.max_chunks=5",),
    "teacher-forced": ("method.max_chunks=5", "method.rollout.motion=clip"),
    "K_max 1": ("method.max_chunks=1",),
    "K_max 3": ("method.max_chunks=3",),
    "noisy teacher motion": ("method.max_chunks=5", "method.noisy_teacher_motion=true"),
    "motion alignment": ("method.max_chunks=5", "method.motion_alignment=1.0"),
}
"""Name -> changed settings. The first four are the paper's claim, the last two those of the public
reproduction (docs/ablation.md)."""
CLAIMS: Final = ("noisy teacher motion", "motion alignment")
