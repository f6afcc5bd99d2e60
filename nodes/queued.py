"""The prompt that is being queued: what a node is given besides the inputs that ComfyUI passes to its check.

ComfyUI repeats what a node's check says for every input that the check names. So each check names one input and finds
the others here. Where ComfyUI checks a prompt that has not come through its server, they are unknown, and what is wrong
with them is said when the node runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

_PROMPT: ContextVar[object] = ContextVar("livetalk_queued_prompt", default=None)


class QueuedInputs:
    """A node's inputs as they were queued.

    Args:
        inputs: Name -> value, or [node, output] for a link; None if they are not known.
    """

    def __init__(self, inputs: Mapping[str, object] | None) -> None:
        self.known = inputs is not None
        self._inputs = inputs or {}

    def linked(self, name: str) -> bool:
        """Whether something is connected."""
        return isinstance(self._inputs.get(name), list)

    def values(self, *names: str) -> dict[str, Any]:
        """Those of these inputs that have a value, which is not one that comes through a link."""
        return {name: self._inputs[name] for name in names if name in self._inputs and not self.linked(name)}


def remember_prompt(request: object) -> object:
    """Keep the prompt of a request for the checks that follow in the same task; the request is handed on unchanged."""
    _PROMPT.set(request.get("prompt") if isinstance(request, Mapping) else None)
    return request


def queued_inputs(node: str | None) -> QueuedInputs:
    """The inputs of a node of the prompt that is being checked."""
    prompt = _PROMPT.get()
    described = prompt.get(node) if isinstance(prompt, Mapping) else None
    inputs = described.get("inputs") if isinstance(described, Mapping) else None
    return QueuedInputs(inputs if isinstance(inputs, Mapping) else None)
