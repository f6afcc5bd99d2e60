"""One chunk: (constants, state, samples) -> (chunk, state), a function without side effects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio import check_samples
from ..chunking import ChunkSpan, chunk_span, total_frames
from ..errors import AudioError, NumericalError, StateError
from ..retrospective import LEAD_FRAMES, appearance, fade_border, match_color, measure_drift, motion_latents
from ..sampling import motion_buffer, sample
from ..telemetry import StageTimer
from .constants import StreamConstants
from .reanchor import last_borders, next_history, reanchor
from .state import StreamState

Trace = Callable[[str, Tensor], None]
"""Sees intermediate results by name: motion_latents_in, step{i}.latent_in, step{i}.model_out, latent_final,
decoded, motion_latents_next, video, motion_latents_reanchored."""

Phase = Literal["audio", "step", "decode", "finish"]
Progress = Callable[[Phase, int, int], None]
"""Called as (phase, step, steps) before a chunk's sound is encoded, before each denoising step, before decoding and
before what follows it. Raising from it leaves the chunk: the stream then stands where it stood. On a GPU the work
before the call is queued, not done."""

FrameTarget = Callable[[tuple[int, ...]], "NDArray[np.uint8] | None"]
"""Shape [F,H,W,3] -> the memory that the frames are to be written to; None where nobody wants them."""

STAGES = ("audio", "denoise", "decode", "correct", "encode")
"""Timed in every chunk; "reanchor" is added where that was done."""


@dataclass(frozen=True)
class Chunk:
    """Frames that are ready to be shown.

    Attributes:
        index: Chunk number.
        first_frame: Number of its first frame within the stream: its presentation time in frames.
        frames: uint8 [F,H,W,3].
        timings: Seconds per stage.
        stats: Measurements of the chunk: `peak_latent`; `drift` (its score) with `drift_color`, `drift_sharpness` and
            `drift_similarity`, see `retrospective.Drift`; `reanchored`, 1 where the next chunk does not continue from
            these frames but from motion latents made anew.
    """

    index: int
    first_frame: int
    frames: NDArray[np.uint8]
    timings: dict[str, float]
    stats: dict[str, float]


@dataclass(frozen=True)
class Rendered:
    """A chunk before trimming and rounding: new video [1,3,F,H,W], the next motion latents, and the two frames before
    the new ones [1,3,2,H,W] as this chunk decodes them, where border_fade asks for it."""

    video: Tensor
    motion: Tensor
    peak: float
    before: Tensor | None = None


@dataclass(frozen=True)
class _Heard:
    """The audio side of a step: feature windows, the state's new audio fields, frames to hand out."""

    windows: Tensor
    state: StreamState
    frames: int


@torch.no_grad()
def step(
    constants: StreamConstants,
    state: StreamState,
    samples: NDArray[np.floating] | None = None,
    trace: Trace | None = None,
    progress: Progress | None = None,
    target: FrameTarget | None = None,
) -> tuple[Chunk, StreamState]:
    """Make the next chunk.

    Args:
        constants: The stream.
        state: Where it stands.
        samples: Sound of the chunk's new frames in stream mode, [S] with 1 <= S <= slice_samples. Fewer than
            slice_samples end the stream: silence is added and the frames are trimmed to the sound. None in
            whole mode.
        trace: Sees intermediate results.
        progress: Is told where the chunk is, and may leave it.
        target: Says where the frames go; by default into new memory.

    Returns:
        The chunk and the state after it; the state given is still valid.

    Raises:
        AudioError: samples missing, too many, not finite.
        NumericalError: the model produced NaN or infinity.
        StateError: the stream has ended.
    """
    if state.ended:
        raise StateError("The stream has ended.", "Open a new one.", chunk=state.chunk)
    span = chunk_span(state.chunk, constants.config.geometry, constants.config.audio.mode)
    timer = StageTimer(_synchroniser(constants.bundle.device))
    report = progress or _unwatched
    steps = constants.config.sampler.steps
    report("audio", 0, steps)
    with timer.stage("audio"):
        heard = _listen(constants, state, span, samples)
    rendered = render(constants, span, state.motion, heard.windows, timer, trace, report)
    fade = constants.config.correction.border_fade
    with timer.stage("correct"):
        if rendered.before is not None and state.border is not None:
            shown = fade_border(rendered.video, rendered.before, state.border.to(rendered.video.device), fade)
            rendered = replace(rendered, video=shown)
        frames = to_frames(rendered.video[:, :, : heard.frames], target)
    after, stats = _look_back(constants, heard.state, rendered, heard.windows, timer, trace, report)
    stats["peak_latent"] = rendered.peak
    chunk = Chunk(span.index, span.first_frame, frames, timer.seconds, stats)
    border = rendered.video[:, :, -1:].clone() if fade else None
    return chunk, replace(after, chunk=state.chunk + 1, border=border)


@torch.no_grad()
def render(
    constants: StreamConstants,
    span: ChunkSpan,
    motion: Tensor | None,
    windows: Tensor,
    timer: StageTimer,
    trace: Trace | None = None,
    progress: Progress | None = None,
) -> Rendered:
    """Windows [1,F,2*context+1,layers,channels] -> corrected video and the next motion latents."""
    bundle, config = constants.bundle, constants.config
    see: Trace = trace or (lambda name, tensor: None)
    report, steps = progress or _unwatched, config.sampler.steps
    with timer.stage("denoise"):
        latents = _denoise(constants, span.index, motion, windows, see, report)
        peak = _require_finite(latents, span.index, "latents")
    report("decode", steps, steps)
    with timer.stage("decode"):
        video = bundle.vae.decode(latents.to(bundle.dtype))
        see("decoded", video)
    report("finish", steps, steps)
    with timer.stage("correct"):
        # Frames that are neither handed out nor conditioned on need no correction.
        fresh = span.features - span.drop
        lead = LEAD_FRAMES if config.correction.border_fade > 0 and span.drop >= LEAD_FRAMES else 0
        needed = max(fresh + lead, config.geometry.motion_frames)
        video = match_color(video[:, :, -needed:], constants.color, config.correction.color_strength)
    with timer.stage("encode"):
        following = motion_latents(bundle.vae.encode, video, config.geometry.motion_frames).to(bundle.dtype)
        _require_finite(following, span.index, "motion latents")
        see("motion_latents_next", following)
    start = needed - fresh
    before = video[:, :, start - lead : start] if lead else None
    video = video[:, :, start:]
    see("video", video)
    return Rendered(video, following, peak, before)


def to_255(video: Tensor) -> Tensor:
    """Video [1,3,F,H,W] in [-1,1] -> float32 frames [F,H,W,3] in 0..255, not rounded."""
    return ((video[0].float() + 1) / 2).clamp(0, 1).permute(1, 2, 3, 0) * 255


def to_frames(video: Tensor, target: FrameTarget | None = None) -> NDArray[np.uint8]:
    """Video [1,3,F,H,W] in [-1,1] -> uint8 frames [F,H,W,3], rounded (the published code truncates).

    Args:
        video: See above.
        target: Says where they go; no frames are made where it says None.
    """
    _, channels, count, height, width = video.shape
    shape = (count, height, width, channels)
    frames = np.empty(shape, np.uint8) if target is None else target(shape)
    if frames is None:
        return np.empty((0, *shape[1:]), np.uint8)
    torch.from_numpy(frames).copy_((to_255(video) + 0.5).to(torch.uint8))
    return frames


def _listen(
    constants: StreamConstants, state: StreamState, span: ChunkSpan, samples: NDArray[np.floating] | None
) -> _Heard:
    geometry, clip = constants.config.geometry, constants.clip
    if clip is not None:
        frames = min(span.stop_frame, clip.frames) - span.first_frame
        heard = min(clip.samples, span.stop_frame * geometry.samples_per_frame)
        ended = span.stop_frame >= clip.frames
        windows = constants.audio.windows(clip.features, span.first_feature, span.features)
        ring = state.ring
    else:
        limit = geometry.slice_samples
        sound = np.zeros(0) if samples is None else samples
        given = check_samples(sound, geometry.sample_rate, state.samples)
        if not 1 <= len(given) <= limit:
            raise AudioError(f"Chunk {span.index} was given {len(given)} samples.", f"Give 1 to {limit}.")
        heard, ended = state.samples + len(given), len(given) < limit
        # Rounding may leave the last few samples no frame of their own; a chunk still has at least one.
        frames = max(1, min(total_frames(heard, geometry) - span.first_frame, span.frames))
        ring = state.ring.push(np.pad(given, (0, limit - len(given))))
        windows = constants.audio.stream_windows(ring)
    after = replace(state, samples=heard, ended=ended, ring=ring)
    return _Heard(windows.to(constants.bundle.device), after, frames)


def _denoise(
    constants: StreamConstants, chunk: int, motion: Tensor | None, windows: Tensor, see: Trace, report: Progress
) -> Tensor:
    """Sample the latents of a chunk, float32 [1,16,T,h,w]."""
    bundle = constants.bundle
    known = constants.first_motion if motion is None else motion.to(bundle.device)
    see("motion_latents_in", known)
    velocity = constants.velocity(windows, constants.y)
    reference = constants.y[:, constants.config.geometry.temporal_stride :]
    shape = tuple(reference.shape)

    def draw(index: int) -> Tensor:
        return constants.noise.draw(chunk, index, shape).to(bundle.device)

    def observe(index: int, latents: Tensor, predicted: Tensor) -> None:
        see(f"step{index}.latent_in", latents)
        see(f"step{index}.model_out", predicted)

    initial = constants.noise.draw(chunk, 0, shape).to(bundle.dtype).to(bundle.device)
    buffer, mask = motion_buffer(known, shape[2])
    steps = constants.config.sampler.steps
    latents = sample(
        velocity, initial, constants.levels, buffer, mask, draw, observe, lambda step: report("step", step, steps)
    )
    see("latent_final", latents)
    return latents


def _look_back(
    constants: StreamConstants,
    state: StreamState,
    rendered: Rendered,
    windows: Tensor,
    timer: StageTimer,
    trace: Trace | None,
    report: Progress,
) -> tuple[StreamState, dict[str, float]]:
    """Measure the chunk's drift and settle what the next one is conditioned on: the state with that, measurements."""
    correction, steps = constants.config.correction, constants.config.sampler.steps
    with timer.stage("correct"):
        anchor = state.anchor
        if correction.anchor == "first_chunk" and anchor is None:
            anchor = appearance(rendered.video)
        drift = measure_drift(rendered.video, anchor or constants.appearance)
    motion = rendered.motion
    again = correction.lookback > 0 and correction.renoise > 0 and correction.drift_threshold < drift.score
    if again and not state.ended:
        with timer.stage("reanchor"):
            borders = last_borders(constants, state, motion)
            motion = reanchor(constants, state.chunk, borders, windows, lambda step: report("finish", steps, steps))
            _require_finite(motion, state.chunk, "motion latents")
        if trace is not None:
            trace("motion_latents_reanchored", motion)
    stats = {"drift": drift.score, **{f"drift_{name}": value for name, value in vars(drift).items()}}
    stats["reanchored"] = float(motion is not rendered.motion)
    return replace(state, motion=motion, history=next_history(constants, state), anchor=anchor), stats


def _unwatched(phase: Phase, step: int, steps: int) -> None:
    """Nobody wants to know where the chunk is."""


def _require_finite(tensor: Tensor, chunk: int, what: str) -> float:
    """Largest magnitude; NumericalError if it is NaN or infinite: no broken picture goes out or on."""
    peak = float(tensor.abs().max())
    if not np.isfinite(peak):
        raise NumericalError(
            f"The model produced {peak} in the {what} of chunk {chunk}.",
            "Try another number format (fp32), or check the model's files.", chunk=chunk,
        )  # fmt: skip
    return peak


def _synchroniser(device: torch.device) -> Callable[[], None] | None:
    """GPU work is queued: wait for it where a stage begins and ends."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else None
