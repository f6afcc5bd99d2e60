"""What a node's check knows of the prompt that is being queued."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from nodes.queued import queued_inputs, remember_prompt

pytestmark = pytest.mark.unit

REQUEST = {"prompt": {"1": {"class_type": "A", "inputs": {"model": ["2", 0], "width": 96, "prompt": None}}}}


def test_values_and_links_are_told_apart() -> None:
    def check() -> None:
        assert remember_prompt(REQUEST) is REQUEST
        given = queued_inputs("1")
        assert given.known and given.linked("model") and not given.linked("width") and not given.linked("audio")
        assert given.values("model", "width", "prompt", "audio") == {"width": 96, "prompt": None}

    contextvars.Context().run(check)


def test_nothing_is_known_of_other_nodes_other_requests_and_what_is_no_prompt() -> None:
    def check(request: object, node: str | None) -> None:
        remember_prompt(request)
        given = queued_inputs(node)
        assert not given.known and not given.values("width") and not given.linked("width")

    for node in ("2", None):
        contextvars.Context().run(check, REQUEST, node)
    for request in (None, [], {}, {"prompt": []}, {"prompt": {"1": 5}}, {"prompt": {"1": {"inputs": [1]}}}):
        contextvars.Context().run(check, request, "1")
    assert not queued_inputs("1").known


def test_requests_at_the_same_time_do_not_see_each_other() -> None:
    async def request(width: int) -> object:
        remember_prompt({"prompt": {"1": {"inputs": {"width": width}}}})
        await asyncio.sleep(0)
        return queued_inputs("1").values("width")["width"]

    async def both() -> list[object]:
        return list(await asyncio.gather(request(1), request(2)))

    assert asyncio.run(both()) == [1, 2]
