"""StreamChunkSampler: model, sound and picture become a stream that can be pulled."""

from __future__ import annotations

from typing import Any

from .core import require_core
from .host import CATEGORY, AudioType, ModelType, StreamType, checked_inputs, io
from .limits import (
    MAX_CHUNK_FRAMES,
    MAX_SECONDS,
    MAX_SEED,
    MAX_SHIFT,
    MAX_SIDE,
    MAX_STEPS,
    SIDE_STEP,
    chunk_problem,
    number_problem,
    prompt_problem,
    size_problem,
    socket_problem,
)
from .recipes import AudioRecipe, ModelRecipe


class StreamChunkSampler(io.ComfyNode):
    """Describes a stream, which takes no time; Parallel VAE Decode makes its video."""

    @classmethod
    def define_schema(cls) -> Any:
        """What the page shows of it."""
        return io.Schema(
            node_id="StreamChunkSampler",
            display_name="Stream Chunk Sampler (LiveTalk)",
            category=CATEGORY,
            description="Puts together what a video is made of: a person's picture, speech, and how it is sampled. "
            "0 stands for the model's own setting.",
            inputs=[
                ModelType.Input("model", tooltip="From Load LiveTalk Model."),
                AudioType.Input("audio", tooltip="From Audio Encode (LiveTalk)."),
                io.Image.Input("image", tooltip="The person, looking at you; the first picture of a batch is used."),
                io.String.Input(
                    "prompt", default="", multiline=True,
                    tooltip="What the video shows. Empty: the model's own. The embedded model reads none.",
                ),
                io.Int.Input(
                    "seed", default=9999, min=0, max=MAX_SEED, control_after_generate=True,
                    tooltip="Same seed and settings, same video; on several GPUs up to rounding.",
                ),
                io.Int.Input(
                    "width", default=0, min=0, max=MAX_SIDE, step=SIDE_STEP,
                    tooltip="Of the video, a multiple of 16. 0: as the picture's shape asks for; 0 for both: at the "
                    "area that the model was trained for.",
                ),
                io.Int.Input(
                    "height", default=0, min=0, max=MAX_SIDE, step=SIDE_STEP,
                    tooltip="Of the video, a multiple of 16. 0: as the picture's shape asks for; 0 for both: at the "
                    "area that the model was trained for.",
                ),
                io.Int.Input(
                    "steps", default=0, min=0, max=MAX_STEPS,
                    tooltip="Sampling steps. 0: the model's, 4. More are slower and rarely better.",
                ),
                io.Float.Input(
                    "shift", default=0.0, min=0.0, max=MAX_SHIFT, step=0.1, round=0.01,
                    tooltip="Time shift of the noise levels. 0: the model's, 5.",
                ),
                io.Float.Input(
                    "max_seconds", default=0.0, min=0.0, max=MAX_SECONDS, step=1.0, round=0.01,
                    tooltip="Use only the beginning of the sound. 0: all of it.",
                ),
                io.Int.Input(
                    "chunk_frames", default=0, min=0, max=MAX_CHUNK_FRAMES,
                    tooltip="Frames of a chunk, 1 plus a multiple of 4. 0: the model's, 33.",
                ),
                io.Int.Input(
                    "motion_frames", default=0, min=0, max=MAX_CHUNK_FRAMES,
                    tooltip="Frames that a chunk repeats from the one before, 1 plus a multiple of 4. 0: the model's.",
                ),
                io.Conditioning.Input(
                    "conditioning", optional=True,
                    tooltip="In place of the prompt: CLIP Text Encode with umt5_xxl, type wan.",
                ),
                io.ClipVisionOutput.Input(
                    "clip_vision_output", optional=True,
                    tooltip="In place of the model's own look at the picture: CLIP Vision Encode with clip_vision_h.",
                ),
            ],
            outputs=[StreamType.Output(display_name="stream", tooltip="For Parallel VAE Decode, which makes it.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, prompt: str | None = None) -> bool | str:
        """Whether the values can be used, and links are links; None comes through one. ComfyUI checks other ranges."""
        given = checked_inputs()
        numbers = given.values("width", "height", "chunk_frames", "motion_frames")
        return (
            prompt_problem(prompt or "")
            or size_problem(numbers.get("width"), numbers.get("height"))
            or chunk_problem(numbers.get("chunk_frames") or 0, numbers.get("motion_frames") or 0)
            or number_problem(given.values("shift", "max_seconds"))
            or socket_problem(given.values("model", "audio", "image", "conditioning", "clip_vision_output"))
            or True
        )

    @classmethod
    def execute(
        cls,
        model: ModelRecipe,
        audio: AudioRecipe,
        image: Any,
        prompt: str,
        seed: int,
        width: int,
        height: int,
        steps: int,
        shift: float,
        max_seconds: float,
        chunk_frames: int,
        motion_frames: int,
        conditioning: Any = None,
        clip_vision_output: Any = None,
    ) -> Any:
        """A stream, planned; nothing runs yet."""
        require_core()
        from .planning import plan_stream

        return io.NodeOutput(
            plan_stream(
                model, audio, image,
                prompt=prompt, seed=seed, size=(width, height), steps=steps, shift=shift,
                chunk=(chunk_frames, motion_frames), max_seconds=max_seconds,
                conditioning=conditioning, clip_vision_output=clip_vision_output,
            )
        )  # fmt: skip
