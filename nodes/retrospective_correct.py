"""RetrospectiveCorrect: what a chunk is conditioned on."""

from __future__ import annotations

from typing import Any

from .core import require_core
from .host import CATEGORY, StreamType, checked_inputs, io
from .limits import ANCHORS, MAX_LOOKBACK, choice_problem, number_problem, require_no_problem, socket_problem
from .recipes import StreamRecipe

LISTS = {"anchor": ANCHORS}


class RetrospectiveCorrect(io.ComfyNode):
    """Changes how a stream keeps from drifting; takes no time itself."""

    @classmethod
    def define_schema(cls) -> Any:
        """What the page shows of it."""
        return io.Schema(
            node_id="RetrospectiveCorrect",
            display_name="Retrospective Correct (LiveTalk)",
            category=CATEGORY,
            description="How each chunk is corrected before the next one continues from it, so that long videos keep "
            "the person's look. Worth it for long videos of an unusual picture. Without this node the model's own "
            "correction is used.",
            inputs=[
                StreamType.Input("stream", tooltip="From Stream Chunk Sampler."),
                io.Float.Input(
                    "color_strength", default=-1.0, min=-1.0, max=1.0, step=0.05, round=0.001,
                    tooltip="How far colours are pulled to those of the picture: 0 not at all, 1 fully, -1 as the "
                    "model says.",
                ),
                io.Int.Input(
                    "lookback", default=1, min=0, max=MAX_LOOKBACK,
                    tooltip="From how many of the last chunk borders the start of the next chunk is made anew, when a "
                    "chunk has drifted. 1 is the cheapest and brings colours back as well as more do; 4 makes the "
                    "border a little smoother. 0: never, which is the published step.",
                ),
                io.Float.Input(
                    "drift_threshold", default=1.0, min=0.0, max=100.0, step=0.1, round=0.01,
                    tooltip="How far a chunk may drift from its anchor; 1 is a difference that can be seen. 0: correct "
                    "after every chunk.",
                ),
                io.Float.Input(
                    "renoise", default=0.625, min=0.0, max=1.0, step=0.05, round=0.001,
                    tooltip="How much of what has drifted is given up for noise and made again: 0 nothing, 1 all. "
                    "0.625 is the last level of the model's own sampling; less leaves more of the fault.",
                ),
                io.Combo.Input(
                    "anchor", options=ANCHORS, default="reference",
                    tooltip="What drift is measured against: the picture, or the video's own first chunk.",
                ),
            ],
            outputs=[StreamType.Output(display_name="stream", tooltip="The same stream, corrected like this.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, anchor: str | None = None) -> bool | str:
        """Whether the values can be used, and links are links; None comes through one. ComfyUI checks ranges."""
        given = checked_inputs()
        return (
            (anchor is not None and choice_problem({"anchor": anchor}, LISTS))
            or number_problem(given.values("color_strength", "drift_threshold", "renoise"))
            or socket_problem(given.values("stream"))
            or True
        )

    @classmethod
    def execute(
        cls,
        stream: StreamRecipe,
        color_strength: float,
        lookback: int,
        drift_threshold: float,
        renoise: float,
        anchor: str,
    ) -> Any:
        """The stream with these settings."""
        require_core()
        require_no_problem(choice_problem({"anchor": anchor}, LISTS))
        from .planning import plan_correction

        return io.NodeOutput(
            plan_correction(
                stream, color_strength, lookback=lookback, drift_threshold=drift_threshold, renoise=renoise,
                anchor=anchor,
            )
        )  # fmt: skip
