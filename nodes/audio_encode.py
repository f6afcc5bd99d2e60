"""AudioEncode: any AUDIO as the sound that the model follows."""

from __future__ import annotations

from typing import Any, Literal

from .core import require_core
from .host import CATEGORY, AudioType, ModelType, checked_inputs, io, temporary_folder
from .limits import choice_problem, number_problem, require_no_problem, socket_problem
from .recipes import ModelRecipe

MODES = ["stream", "whole"]
LISTS = {"mode": MODES}


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
                    "loudness", default=-23.0, min=-70.0, max=0.0, step=0.5, round=0.1,
                    tooltip="LUFS that the model hears the sound at; -23 is what it was trained with. The sound of the "
                    "video is not changed.",
                ),
            ],
            outputs=[AudioType.Output(display_name="audio", tooltip="For Stream Chunk Sampler.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, mode: str | None = None) -> bool | str:
        """Whether the values can be used, and links are links; None comes through one. ComfyUI checks the range."""
        given = checked_inputs()
        return (
            (mode is not None and choice_problem({"mode": mode}, LISTS))
            or number_problem(given.values("loudness"))
            or socket_problem(given.values("model", "audio"))
            or True
        )

    @classmethod
    def execute(cls, model: ModelRecipe, audio: Any, mode: Literal["stream", "whole"], loudness: float) -> Any:
        """The sound, checked, and how it is to be encoded."""
        require_core()
        require_no_problem(choice_problem({"mode": mode}, LISTS))
        from .planning import plan_audio

        return io.NodeOutput(plan_audio(model, audio, loudness, mode, temporary_folder()))
