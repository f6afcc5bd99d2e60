"""All nodes, and what is registered with the host when it starts."""

from __future__ import annotations

import logging
from typing import Any

from .core import provide_core
from .examples import offer_examples
from .host import ComfyExtension, input_folder, prompt_server, register_model_folder
from .queued import remember_prompt

logger = logging.getLogger("livetalk")


class LiveTalkExtension(ComfyExtension):
    """The pack, as ComfyUI asks for it."""

    async def get_node_list(self) -> list[Any]:
        """The node classes."""
        from .audio_encode import AudioEncode
        from .load_model import LoadLiveTalkModel
        from .release_model import LiveTalkReleaseModel
        from .retrospective_correct import RetrospectiveCorrect
        from .stream_sampler import StreamChunkSampler
        from .vae_decode import ParallelVAEDecode

        return [
            LoadLiveTalkModel,
            AudioEncode,
            StreamChunkSampler,
            RetrospectiveCorrect,
            ParallelVAEDecode,
            LiveTalkReleaseModel,
        ]


def load_extension() -> LiveTalkExtension:
    """Register folder and routes, and make the engine importable; starts nothing."""
    try:
        provide_core()
        register_model_folder()
        offer_examples(input_folder())
        server = prompt_server()
        if server is not None:
            from .routes import add_routes

            add_routes(server)
            server.add_on_prompt_handler(remember_prompt)
    except Exception:
        # The host says only in one line that it went wrong.
        logger.exception("LiveTalk cannot be loaded")
        raise
    return LiveTalkExtension()
