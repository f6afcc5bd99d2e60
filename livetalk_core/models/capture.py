"""Recording of a transformer's intermediate results by forward hooks, for conformance and debugging."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

_TOP_LEVEL = (
    "patch_embedding", "text_embedding", "time_embedding", "time_projection", "img_emb", "audio_proj", "head",
)  # fmt: skip
_IN_BLOCK = ("self_attn", "cross_attn", "audio_cross_attn", "ffn")


@contextmanager
def capture_intermediates(transformer: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the output of every stage while the block runs; the last call of a stage wins.

    Names: ``patch_embedding``, ``text_embedding``, ``time_embedding``, ``time_projection``, ``img_emb``,
    ``audio_proj``, ``head``, ``block{i}`` and ``block{i}.{self_attn,cross_attn,audio_cross_attn,ffn}``.
    """
    captured: dict[str, Tensor] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            captured[name] = output.detach()

        return hook

    modules = {name: transformer.get_submodule(name) for name in _TOP_LEVEL}
    blocks = transformer.get_submodule("blocks")
    for index, block in enumerate(blocks.children()):
        modules[f"block{index}"] = block
        modules.update({f"block{index}.{name}": block.get_submodule(name) for name in _IN_BLOCK})
    handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()
