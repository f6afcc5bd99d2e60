"""AudioEncode: any AUDIO as the sound that the model follows."""

from __future__ import annotations

from typing import Any, Literal

from .core import require_core
from .host import CATEGORY, AudioType, ModelType, io, temporary_folder
from .limits import choice_problem, range_problem, require_no_problem, socket_problem
from .recipes import ModelRecipe

MODES = ["stream", "whole"]
MIN_LOUDNESS, MAX_LOUDNESS = -70.0, 0.0


class AudioEncode(io.ComfyNode):
    """Checks and resamples sound, and says how it is to be encoded; the engine encodes it as it is needed."""

    @classmethod
    def define_schema(cls) -> Any:
        """What the page shows of it."""
        return io.Schema(
            node_id="AudioEncode",
            display_name="Audio Encode (LiveTalk)",
            category=CATEGORY,
            description="Prepares speech for the model: any sample rate, any number of channels, any length.",
            inputs=[
                ModelType.Input("model", tooltip="From Load LiveTalk Model."),
                io.Audio.Input("audio", tooltip="Speech, for instance from Load Audio. Channels are averaged."),
                io.Combo.Input(
                    "mode", options=MODES, default="stream",
                    tooltip="'stream' listens to 8 seconds at a time: any length, as in a live conversation. 'whole' "
                    "encodes the entire clip at once, at most 120 seconds.",
                ),
                io.Float.Input(
                    "loudness", default=-23.0, min=MIN_LOUDNESS, max=MAX_LOUDNESS, step=0.5, round=0.1,
                    tooltip="LUFS that the model hears the sound at; -23 is what it was trained with. The sound of the "
                    "video is not changed.",
                ),
            ],
            outputs=[AudioType.Output(display_name="audio", tooltip="For Stream Chunk Sampler.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(
        cls, model: Any = None, audio: Any = None, mode: str | None = None, loudness: float | None = None
    ) -> bool | str:
        """Whether links are links, and what is not linked can be used."""
        problem = (
            socket_problem({"model": model, "audio": audio})
            or choice_problem({"mode": (mode, MODES)})
            or range_problem({"loudness": (loudness, MIN_LOUDNESS, MAX_LOUDNESS)})
        )
        return problem or True

    @classmethod
    def execute(cls, model: ModelRecipe, audio: Any, mode: Literal["stream", "whole"], loudness: float) -> Any:
        """The sound, checked, and how it is to be encoded."""
        require_core()
        require_no_problem(choice_problem({"mode": (mode, MODES)}, running=True))
        from .planning import plan_audio

        return io.NodeOutput(plan_audio(model, audio, loudness, mode, temporary_folder()))
