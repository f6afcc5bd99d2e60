"""Queue a prompt on a host and follow it to its end over the websocket, as the page does."""

from __future__ import annotations

import asyncio
import json
import struct
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

_BINARY = {1: "preview", 4: "preview_with_metadata"}
_ENDS = {
    "execution_success": "success", "execution_error": "error", "execution_interrupted": "interrupted",
}  # fmt: skip


class RefusedError(Exception):
    """The prompt was answered with HTTP 400.

    Attributes:
        report: The JSON body: `error` and `node_errors`.
    """

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__(json.dumps(report, indent=1))
        self.report = report

    def sentences(self) -> list[str]:
        """What is said about the inputs."""
        errors = [error for node in self.report["node_errors"].values() for error in node["errors"]]
        return [f"{error['message']}: {error['details']}" for error in errors]


@dataclass
class Outcome:
    """How a prompt went.

    Attributes:
        status: "success", "error" or "interrupted".
        events: (seconds since it was queued, type, data) of everything on the websocket.
        outputs: Node id -> what the node shows, as in the history.
        error: What the host says about a failure.
    """

    prompt: str
    status: str = ""
    events: list[tuple[float, str, Any]] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] = field(default_factory=dict)

    def told(self, kind: str) -> list[Any]:
        """Data of all events of a kind."""
        return [data for _, name, data in self.events if name == kind]

    def when(self, kind: str) -> float:
        """Seconds until the first event of a kind."""
        return next(moment for moment, name, _ in self.events if name == kind)

    def ran(self) -> set[str]:
        """Nodes that were executed, not taken from the cache."""
        return {data["node"] for data in self.told("executing") if data.get("node")}


Reaction = Callable[[str, Any], bool]


def run_prompt(
    url: str, prompt: dict[str, Any], *, interrupt: Reaction | None = None, timeout: float = 300.0
) -> Outcome:
    """Queue a prompt in the API's format and wait for its end.

    Args:
        url: Address of the host.
        prompt: Node id -> class_type and inputs.
        interrupt: Asked at every event, (type, data); the first True presses Stop.
        timeout: Longest wait in seconds.

    Raises:
        RefusedError: the host does not take the prompt.
    """
    return asyncio.run(asyncio.wait_for(_run(url, prompt, interrupt), timeout))


async def _run(url: str, prompt: dict[str, Any], interrupt: Reaction | None) -> Outcome:
    client = uuid.uuid4().hex
    async with (
        aiohttp.ClientSession(url) as http,
        http.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket,
    ):
        await socket.send_json({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
        queued = time.monotonic()
        async with http.post("/prompt", json={"prompt": prompt, "client_id": client}) as answer:
            accepted = await answer.json()
            if answer.status != 200:
                raise RefusedError(accepted)
        outcome = Outcome(accepted["prompt_id"])
        await _follow(http, socket, outcome, queued, interrupt)
        outcome.outputs = await _outputs(http, outcome.prompt)
    return outcome


async def _outputs(http: Any, prompt: str) -> dict[str, Any]:
    """What the nodes show; the host writes its history a moment after it has said that all is done."""
    while True:
        async with http.get(f"/history/{prompt}") as answer:
            entry = (await answer.json()).get(prompt)
        if entry is not None:
            outputs: dict[str, Any] = entry["outputs"]
            return outputs
        await asyncio.sleep(0.02)


async def _follow(http: Any, socket: Any, outcome: Outcome, queued: float, interrupt: Reaction | None) -> None:
    async for message in socket:
        event = _decode(message)
        if event is None or event[1].get("prompt_id", outcome.prompt) != outcome.prompt:
            continue
        kind, data = event
        outcome.events.append((time.monotonic() - queued, kind, data))
        if interrupt is not None and interrupt(kind, data):
            interrupt = None
            outcome.events.append((time.monotonic() - queued, "stop pressed", {}))
            await http.post("/interrupt", json={"prompt_id": outcome.prompt})
        if kind in _ENDS:
            outcome.status, outcome.error = _ENDS[kind], data
            return
    raise ConnectionError("the host closed the websocket")


def _decode(message: aiohttp.WSMessage) -> tuple[str, dict[str, Any]] | None:
    if message.type == aiohttp.WSMsgType.BINARY:
        kind = _BINARY.get(struct.unpack(">I", message.data[:4])[0], "binary")
        return kind, {"bytes": len(message.data)}
    if message.type == aiohttp.WSMsgType.TEXT:
        event = json.loads(message.data)
        return event["type"], event.get("data") or {}
    return None
