"""What the widgets take, in words; without the engine, so that it works before anything is installed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MAX_SEED = 2**64 - 1
MAX_SIDE = 4096
SIDE_STEP = 16
MAX_PROMPT_CHARACTERS = 20_000
MAX_GPUS = 64
MAX_CHUNK_FRAMES = 1025
MAX_STEPS = 1000
MAX_SHIFT = 100.0
MAX_SECONDS = 86_400.0
MAX_WHOLE_SECONDS = 120
MAX_LOOKBACK = 5
ANCHORS = ("reference", "first_chunk")
TEMPORARY_FOLDER_HINT = "Make room there, or start ComfyUI with --temp-directory on another disk."
_MAX_SHOWN = 80


class InputError(ValueError):
    """An input of a node that cannot be used."""


def require_no_problem(problem: str) -> None:
    """Raise InputError with what is wrong, if anything is."""
    if problem:
        raise InputError(problem)


def socket_problem(values: Mapping[str, object]) -> str:
    """The first of these sockets that was given a value: they take links."""
    for name, value in values.items():
        if value is not None:
            return f"{name} is {_shown(value)}, a value; it takes a link to another node's output."
    return ""


def choice_problem(values: Mapping[str, object], lists: Mapping[str, Sequence[str]]) -> str:
    """The first value that is not on its list; ComfyUI checks lists for nodes of the older kind only."""
    for name, value in values.items():
        known = lists[name]
        if value not in known:
            return f"There is no {name} {_shown(value)}. Choices: {', '.join(known)}."
    return ""


def number_problem(values: Mapping[str, object]) -> str:
    """The first that is not a number, which ComfyUI's ranges let pass."""
    for name, value in values.items():
        if value != value:
            return f"{name} is {_shown(value)}; it has to be a number."
    return ""


def range_problem(numbers: Mapping[str, tuple[float | None, float, float]]) -> str:
    """The first number that is out of its range, or none at all; None is one that comes through a link.

    Args:
        numbers: Input name -> (value, smallest, largest).
    """
    for name, (value, low, high) in numbers.items():
        if value is not None and not (isinstance(value, int | float) and low <= value <= high):
            return f"{name} is {_shown(value)}; it has to be from {low:,} to {high:,}."
    return ""


def stream_problem(
    prompt: str, size: tuple[int, int], chunk: tuple[int, int], shift: float, max_seconds: float
) -> str:  # fmt: skip
    """What is wrong with the settings of a stream (StreamChunkSampler)."""
    numbers = {"shift": (shift, 0, MAX_SHIFT), "max_seconds": (max_seconds, 0, MAX_SECONDS)}
    return prompt_problem(prompt) or size_problem(*size) or range_problem(numbers) or chunk_problem(*chunk)


def size_problem(width: int | None, height: int | None) -> str:
    """What is wrong with the sides of a video; 0 follows from the picture, None comes through a link."""
    for name, side in (("width", width), ("height", height)):
        problem = range_problem({name: (side, 0, MAX_SIDE)})
        if problem:
            return problem
        if side and side % SIDE_STEP:
            low = side - side % SIDE_STEP
            near = f"{low} or {low + SIDE_STEP}" if low else f"{SIDE_STEP}"
            return f"{name} is {side}: it has to be a multiple of {SIDE_STEP}, for instance {near}."
    return ""


def prompt_problem(prompt: str) -> str:
    """What is wrong with a prompt."""
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        return f"The prompt has {len(prompt):,} characters; at most {MAX_PROMPT_CHARACTERS:,} are taken."
    return ""


def chunk_problem(frames: int, motion_frames: int) -> str:
    """What is wrong with chunk lengths; 0 leaves one to the model."""
    for name, value in (("chunk_frames", frames), ("motion_frames", motion_frames)):
        problem = range_problem({name: (value, 0, MAX_CHUNK_FRAMES)})
        if problem:
            return problem
        if value and (value - 1) % 4:
            low = value - (value - 1) % 4
            return f"{name} is {value}: it has to be 1 plus a multiple of 4, for instance {low} or {low + 4}."
    if frames and motion_frames >= frames:
        return f"motion_frames is {motion_frames}: it has to be below chunk_frames, {frames}."
    return ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
