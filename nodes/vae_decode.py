"""ParallelVAEDecode: the sink that makes the video of a stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from .core import require_core
from .host import CATEGORY, HostNode, InputImpl, StreamType, io, temporary_folder
from .recipes import StreamRecipe

MAX_KEPT_FRAMES = 4096


class ParallelVAEDecode(io.ComfyNode):
    """Pulls a stream chunk by chunk into a video file, at constant memory for any length."""

    @classmethod
    def define_schema(cls) -> Any:
        return io.Schema(
            node_id="ParallelVAEDecode",
            display_name="Parallel VAE Decode (LiveTalk)",
            category=CATEGORY,
            description="Makes the video: samples and decodes chunk by chunk, on all GPUs of the model. You can watch "
            "while it runs.",
            inputs=[
                io.Int.Input(
                    "keep_frames", default=1, min=1, max=MAX_KEPT_FRAMES,
                    tooltip="How many of the last frames come out as images. The entire video is in the video output.",
                ),
                io.Boolean.Input(
                    "live_view", default=True,
                    tooltip="Show the video with its sound on this node while it is being made.",
                ),
                StreamType.Input(
                    "stream", optional=True, tooltip="From Stream Chunk Sampler or Retrospective Correct.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="A file with sound, for Save Video."),
                io.Image.Output(display_name="images", tooltip="The last frames."),
                io.String.Output(display_name="report", tooltip="JSON: settings, timings, a digest of every chunk."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def execute(cls, keep_frames: int, live_view: bool, stream: StreamRecipe | None = None) -> Any:
        require_core()
        if stream is None:
            raise ValueError("Nothing to decode: connect a stream.")
        return _make_video(stream, HostNode(cls.hidden.unique_id), keep_frames, live_view)


def _make_video(stream: StreamRecipe, node: HostNode, keep_frames: int, live_view: bool) -> Any:
    import torch

    from .runner import run_stream
    from .sink_view import SinkView

    output: Path = temporary_folder() / f"{uuid4().hex}.mp4"
    with SinkView(node, keep_frames, live_view) as view:
        report = run_stream(stream, output, view)
    images = torch.from_numpy(view.frames).float() / 255
    shown = {"filename": output.name, "subfolder": output.parent.name, "type": "temp"}
    return io.NodeOutput(
        InputImpl.VideoFromFile(str(output)), images, report.to_json(), ui={"livetalk_video": [shown]}
    )
