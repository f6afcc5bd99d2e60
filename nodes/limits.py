"""What the widgets take, in words; without the engine, so that it works before anything is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_SEED = 2**64 - 1
MAX_SIDE = 4096
SIDE_STEP = 16
MAX_PROMPT_CHARACTERS = 20_000
MAX_GPUS = 64
MAX_CHUNK_FRAMES = 1025
MAX_WHOLE_SECONDS = 120
MAX_LOOKBACK = 5
ANCHORS = ("reference", "first_chunk")
_MAX_SHOWN = 80


def choice_problem(choices: Mapping[str, tuple[str | None, Sequence[str]]]) -> str:
    """The first value that is not on its list; ComfyUI checks lists for nodes of the older kind only.

    Args:
        choices: Input name -> (value, list); None is not known yet, because it comes through a link.
    """
    for name, (value, known) in choices.items():
        if value is not None and value not in known:
            return f"There is no {name} {str(value)[:_MAX_SHOWN]!r}. Choices: {', '.join(known)}."
    return ""


def size_problem(width: int, height: int) -> str:
    """What is wrong with a video size; 0 x 0 leaves it to the model."""
    if (width == 0) != (height == 0):
        return f"The size is {width}x{height}: give both sides, or 0 for both to take the picture's shape."
    if width % SIDE_STEP or height % SIDE_STEP:
        near = [max(SIDE_STEP, round(side / SIDE_STEP) * SIDE_STEP) for side in (width, height)]
        return f"The size {width}x{height} has a side that is no multiple of {SIDE_STEP}; near it: {near[0]}x{near[1]}."
    return ""


def prompt_problem(prompt: str) -> str:
    """What is wrong with a prompt."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken."
    return ""


def chunk_problem(frames: int, motion_frames: int) -> str:
    """What is wrong with chunk lengths; 0 leaves one to the model."""
    for name, value in (("chunk_frames", frames), ("motion_frames", motion_frames)):
        if value and (value - 1) % 4:
            low = value - (value - 1) % 4
            return f"{name} is {value}: it has to be 1 plus a multiple of 4, for instance {low} or {low + 4}."
    if frames and motion_frames >= frames:
        return f"motion_frames is {motion_frames}: it has to be below chunk_frames, {frames}."
    return ""
