"""LiveTalkReleaseModel: gives the GPUs back."""

from __future__ import annotations

from typing import Any

from .host import CATEGORY, io
from .keeper import release_all


class LiveTalkReleaseModel(io.ComfyNode):
    """Ends the processes that hold the model; the next video loads it again."""

    @classmethod
    def define_schema(cls) -> Any:
        """What the page shows of it."""
        return io.Schema(
            node_id="LiveTalkReleaseModel",
            display_name="Release LiveTalk Model",
            category=CATEGORY,
            description="Gives the memory of the model back, on every GPU it is on. The page's button for freeing "
            "memory does the same.",
            inputs=[
                io.AnyType.Input(
                    "after", optional=True,
                    tooltip="Anything, for instance the video: the model is released when it is there.",
                ),
            ],
            outputs=[io.String.Output(display_name="report", tooltip="What was done.")],
            is_output_node=True,
            not_idempotent=True,
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> float:
        """Runs every time."""
        return float("nan")

    @classmethod
    def execute(cls, after: Any = None) -> Any:
        """What was let go, in words."""
        return io.NodeOutput(release_all())
