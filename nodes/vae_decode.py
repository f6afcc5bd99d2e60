"""ParallelVAEDecode: the sink that makes the video of a stream, or of latents."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .core import require_core
from .host import (
    CATEGORY,
    HostNode,
    InputImpl,
    ModelType,
    StreamType,
    checked_inputs,
    io,
    make_room,
    temporary_folder,
)
from .limits import choice_problem, require_no_problem, socket_problem
from .recipes import ModelRecipe, StreamRecipe

if TYPE_CHECKING:
    from .keeper import Keeper
    from .sink_view import SinkView

DECODINGS = ["exact", "tiled"]
SOCKETS = ("stream", "samples", "model")
MAX_KEPT_FRAMES = 4096
LISTS = {"decoding": DECODINGS}


class ParallelVAEDecode(io.ComfyNode):
    """Pulls a stream, or decodes latents, piece by piece into a video file: constant memory for any length."""

    @classmethod
    def define_schema(cls) -> Any:
        """What the page shows of it."""
        return io.Schema(
            node_id="ParallelVAEDecode",
            display_name="Parallel VAE Decode (LiveTalk)",
            category=CATEGORY,
            description="Makes the video: samples and decodes chunk by chunk, on all GPUs of the model. You can watch "
            "while it runs.",
            inputs=[
                StreamType.Input(
                    "stream", optional=True, tooltip="From Stream Chunk Sampler or Retrospective Correct.",
                ),
                io.Latent.Input(
                    "samples", optional=True,
                    tooltip="In place of a stream: video latents of any Wan 2.1 model, for instance from KSampler.",
                ),
                ModelType.Input(
                    "model", optional=True, tooltip="For samples only: whose VAE decodes them, on how many GPUs.",
                ),
                io.Int.Input(
                    "keep_frames", default=1, min=1, max=MAX_KEPT_FRAMES,
                    tooltip="How many of the last frames come out as images. The entire video is in the video output.",
                ),
                io.Boolean.Input(
                    "live_view", default=True,
                    tooltip="Show the video with its sound on this node while it is being made.",
                ),
                io.Combo.Input(
                    "decoding", options=DECODINGS, default="exact",
                    tooltip="For samples only: 'exact' splits each layer over the GPUs; 'tiled' needs less memory, but "
                    "seams may be visible.",
                ),
                io.Int.Input(
                    "fps", default=16, min=1, max=120, display_name="fps of samples",
                    tooltip="For samples only: frames per second of the video; Wan models make 16. A stream has 25.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="A file with sound, for Save Video."),
                io.Image.Output(display_name="images", tooltip="The last frames."),
                io.String.Output(display_name="report", tooltip="JSON: settings, timings, a digest of every chunk."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, decoding: str | None = None) -> bool | str:
        """Whether links are links, and as many as are needed; None comes through one. ComfyUI checks ranges."""
        given = checked_inputs()
        return (
            socket_problem(given.values(*SOCKETS))
            or (decoding is not None and choice_problem({"decoding": decoding}, LISTS))
            or (given.known and _links_problem(*map(given.linked, SOCKETS)))
            or True
        )

    @classmethod
    def execute(
        cls,
        keep_frames: int,
        live_view: bool,
        decoding: str,
        fps: int,
        stream: StreamRecipe | None = None,
        samples: Any = None,
        model: ModelRecipe | None = None,
    ) -> Any:
        """Video, last frames and report; here everything runs."""
        require_core()
        require_no_problem(
            choice_problem({"decoding": decoding}, LISTS)
            or _links_problem(stream is not None, samples is not None, model is not None)
        )
        node = HostNode(cls.hidden.unique_id, _workflow_id(cls.hidden.extra_pnginfo))
        output = temporary_folder() / f"{uuid4().hex}.mp4"
        from .sink_view import SinkView

        with SinkView(node, keep_frames, live_view) as view:
            if stream is not None:
                report = _make_stream(stream, output, view)
            else:
                report = _decode(samples, model, fps, decoding == "tiled", output, view)
        return _result(output, view, report)


def _workflow_id(page: Any) -> str | None:
    """From what a page sends along with the graph; other clients send nothing."""
    workflow = page.get("workflow") if isinstance(page, dict) else None
    return workflow.get("id") if isinstance(workflow, dict) else None


def _links_problem(stream: bool, samples: bool, model: bool) -> str:
    """What is wrong with which inputs are connected."""
    if stream == samples:
        return f"Connect either a stream or samples; {'both are' if stream else 'nothing is'} connected."
    if samples and not model:
        return "To decode samples, connect a model as well: its VAE, or the one chosen in it, decodes them."
    return ""


def _make_stream(stream: StreamRecipe, output: Path, view: SinkView) -> str:
    from .inputs import require_recipe
    from .keeper import KEEPER
    from .stream_run import run_stream

    require_recipe(stream, StreamRecipe, "stream")
    _make_room_for(stream.model, KEEPER)
    return run_stream(stream, output, view).to_json()


def _decode(samples: Any, model: Any, fps: int, tiled: bool, output: Path, view: SinkView) -> str:
    from .keeper import VAE_KEEPER
    from .latent_run import run_latents
    from .planning import plan_latents

    plan = plan_latents(samples, model, fps, tiled)
    _make_room_for(plan.vae, VAE_KEEPER)
    return run_latents(plan, output, view)


def _make_room_for(model: ModelRecipe, keeper: Keeper) -> None:
    """Models of ComfyUI's own give way where ours has yet to be loaded onto their GPU."""
    if model.device != "cpu" and not keeper.holds(model):
        make_room()


def _result(output: Path, view: SinkView, report: str) -> Any:
    import torch

    images = torch.from_numpy(view.frames).float() / 255
    shown = {"filename": output.name, "subfolder": output.parent.name, "type": "temp"}
    return io.NodeOutput(InputImpl.VideoFromFile(str(output)), images, report, ui={"livetalk_video": [shown]})
