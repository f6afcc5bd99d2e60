"""Everything of ComfyUI that the nodes use, in one place: a change of its API is a change here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from comfy_api.latest import ComfyExtension, InputImpl, io
from comfy_execution.utils import get_executing_context
from PIL import Image

from .queued import QueuedInputs, queued_inputs

__all__ = ["CATEGORY", "AudioType", "ComfyExtension", "HostNode", "InputImpl", "ModelType", "StreamType", "io"]

logger = logging.getLogger("livetalk")

CATEGORY = "LiveTalk"
MODELS = "livetalk"
ModelType = io.Custom("LIVETALK_MODEL")
AudioType = io.Custom("LIVETALK_AUDIO")
StreamType = io.Custom("LIVETALK_STREAM")


class HostNode:
    """What a running node can tell the page; only for the executor's thread.

    Elsewhere ComfyUI would lose an interruption and not know the node.

    Args:
        node: Its unique id.
        workflow: The workflow that it is part of, where a page has queued it.
    """

    def __init__(self, node: str, workflow: str | None = None) -> None:
        self.node = node
        self._workflow = workflow
        self._bar = comfy.utils.ProgressBar(1000, node_id=node)

    def poll(self) -> None:
        """Raise ComfyUI's own exception if the user has pressed Stop."""
        comfy.model_management.throw_exception_if_processing_interrupted()

    def progress(self, share: float, preview: Image.Image | None = None) -> None:
        """Move the bar to `share` of 1, with a small picture."""
        shown = None if preview is None else ("JPEG", preview, max(preview.size))
        self._bar.update_absolute(round(1000 * share), 1000, shown)

    def send(self, event: str, **data: Any) -> None:
        """Send a websocket event to the client whose prompt runs; nobody else is to know the live stream's name."""
        server = prompt_server()
        if server is None or server.client_id is None:
            return
        prompt = getattr(server, "last_prompt_id", None)  # set by ComfyUI's own main program
        origin = {"node": self.node, "prompt_id": prompt, "workflow": self._workflow}
        server.send_sync(event, {**origin, **data}, server.client_id)


def prompt_server() -> Any | None:
    """ComfyUI's server, or None where nodes run without one."""
    from server import PromptServer

    return getattr(PromptServer, "instance", None)


def checked_inputs() -> QueuedInputs:
    """The inputs of the node whose check runs."""
    context = get_executing_context()
    return queued_inputs(None if context is None else context.node_id)


def temporary_folder() -> Path:
    """Where files live until ComfyUI ends; made if absent."""
    folder = Path(folder_paths.get_temp_directory()) / "livetalk"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def input_folder() -> Path:
    """Where Load Image and Load Audio look for files."""
    return Path(folder_paths.get_input_directory())


def model_roots() -> list[Path]:
    """Folders that hold model folders."""
    return [Path(root) for root in folder_paths.get_folder_paths(MODELS)]


def register_model_folder() -> None:
    """Add models/livetalk; extra_model_paths.yaml may add more."""
    folder_paths.add_model_folder_path(MODELS, str(Path(folder_paths.models_dir) / MODELS))


def vae_files() -> list[str]:
    """Names of the files in models/vae."""
    return [name for name in folder_paths.get_filename_list("vae") if name.endswith(".safetensors")]


def vae_path(name: str) -> str:
    """Path of one of `vae_files`.

    Raises:
        FileNotFoundError: it is gone.
    """
    return str(folder_paths.get_full_path_or_raise("vae", name))


def make_room() -> None:
    """Unload ComfyUI's own models from the GPU that ours is going to be loaded on."""
    if comfy.model_management.get_torch_device().type != "cpu":
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
