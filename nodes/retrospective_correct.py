"""RetrospectiveCorrect: what a chunk is conditioned on."""

from __future__ import annotations

from typing import Any

from .core import require_core
from .host import CATEGORY, StreamType, io
from .recipes import StreamRecipe


class RetrospectiveCorrect(io.ComfyNode):
    """Changes how a stream keeps from drifting; takes no time itself."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="RetrospectiveCorrect",
            display_name="Retrospective Correct (LiveTalk)",
            category=CATEGORY,
            description="How each chunk is corrected before the next one continues from it, so that long videos keep "
            "the person's look. Without this node the model's own correction is used.",
            inputs=[
                StreamType.Input("stream", tooltip="From Stream Chunk Sampler."),
                io.Float.Input(
                    "color_strength", default=-1.0, min=-1.0, max=1.0, step=0.05, round=0.001,
                    tooltip="How far colours are pulled to those of the picture: 0 not at all, 1 fully, -1 as the "
                    "model says.",
                ),
            ],
            outputs=[StreamType.Output(display_name="stream", tooltip="The same stream, corrected like this.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, stream: StreamRecipe, color_strength: float) -> Any:
        require_core()
        from .planning import plan_correction

        return io.NodeOutput(plan_correction(stream, color_strength))
