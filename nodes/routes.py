"""The pack's addresses on ComfyUI's server: the live picture, how things stand, giving memory back.

ComfyUI may listen on a network: nothing here takes a path or a command, and a live stream is found only by those who
know its name.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from aiohttp import web

from .keeper import KEEPER, VAE_KEEPER, release_all
from .live import LIVE, Reader

logger = logging.getLogger("livetalk")
_NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_FREE = ("/free", "/api/free")


def add_routes(server: Any) -> None:
    """Register everything on a `PromptServer`."""
    routes = server.routes
    routes.get("/livetalk/live/{name}")(live)
    routes.get("/livetalk/status")(status)
    routes.post("/livetalk/release")(release)
    try:
        server.app.middlewares.append(free_memory)
    except (AttributeError, RuntimeError):
        logger.warning("the page's button for freeing memory will not release LiveTalk's model; its own node does")


async def status(request: web.Request) -> web.Response:
    """Which model is held, by which processes, and how many live streams run."""
    facts = {"stream_model": KEEPER.status(), "decoding_vae": VAE_KEEPER.status(), "live_streams": LIVE.status()}
    return web.json_response(facts, headers=_NO_STORE)


async def release(request: web.Request) -> web.Response:
    """Give the model's memory back, now or when the running video is done."""
    done = await asyncio.get_running_loop().run_in_executor(None, release_all)
    return web.json_response({"result": done}, headers=_NO_STORE)


@web.middleware
async def free_memory(request: web.Request, handler: Any) -> web.StreamResponse:
    """ComfyUI's own request for free memory counts for our model, too, which its manager cannot see."""
    answer: web.StreamResponse = await handler(request)
    if request.method == "POST" and request.path in _FREE and answer.status == 200:
        try:
            wanted = json.loads(await request.text())
        except ValueError:
            return answer
        # As the host reads it: who wants memory wants it from models, unless he says otherwise.
        if isinstance(wanted, dict) and wanted.get("unload_models", wanted.get("free_memory")):
            await asyncio.get_running_loop().run_in_executor(None, release_all)
    return answer


async def live(request: web.Request) -> web.StreamResponse:
    """A running stream as fragmented MP4, from its newest chunk on."""
    stream = LIVE.find(request.match_info["name"])
    if stream is None:
        return web.Response(status=404, text="There is no such live stream, or it has ended.", headers=_NO_STORE)
    loop, news = asyncio.get_running_loop(), asyncio.Event()
    reader = stream.subscribe(lambda: _wake(loop, news))
    if reader is None:
        return web.Response(status=503, text="Too many watch this stream.", headers=_NO_STORE)
    try:
        first = await _next_piece(reader, news)
        if first is None:
            return web.Response(status=410, text="The stream ended before its first picture.", headers=_NO_STORE)
        answer = web.StreamResponse(headers={"Content-Type": stream.content_type, **_NO_STORE})
        await answer.prepare(request)
        piece: bytes | None = first
        while piece is not None:
            await answer.write(piece)
            piece = await _next_piece(reader, news)
        await answer.write_eof()
        return answer
    finally:
        stream.unsubscribe(reader)


async def _next_piece(reader: Reader, news: asyncio.Event) -> bytes | None:
    while (piece := reader.take()) == b"":
        news.clear()
        # It may have come between the two lines before.
        if (piece := reader.take()) != b"":
            break
        await news.wait()
    return piece


def _wake(loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(news.set)
