"""Features that take the place of the prompt's or the picture's own, as one safetensors blob."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import ConfigError
from .wire import MAX_BLOB

if TYPE_CHECKING:
    from torch import Tensor

_HINT = "Give float features from pack_extras."
_FORMATS = ("torch.float32", "torch.float16", "torch.bfloat16")


class Extras(NamedTuple):
    """Text features [1,L,text_dim] and image features [1,n,clip_dim]; None where the model encodes them itself."""

    context: Tensor | None = None
    clip_features: Tensor | None = None


def pack_extras(context: Tensor | None = None, clip_features: Tensor | None = None) -> bytes:
    """Features as the bytes that `Client.open_stream` takes.

    Args:
        context: Text encoder states [1,L,text_dim].
        clip_features: Second-to-last states of the image encoder [1,n,clip_dim].

    Raises:
        ConfigError: features of another shape or kind, not finite, or too many bytes.
    """
    from safetensors.torch import save

    given = {"context": context, "clip_features": clip_features}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in given.items() if tensor is not None}
    for name, tensor in tensors.items():
        _check(name, tensor)
    data = bytes(save(tensors)) if tensors else b""
    if len(data) > MAX_BLOB:
        raise ConfigError(
            f"The features have {len(data)} bytes, at most {MAX_BLOB} are taken.", "Use half precision.",
            setting="extras",
        )  # fmt: skip
    return data


def unpack_extras(data: bytes) -> Extras:
    """The features in bytes from `pack_extras`; b"" holds none.

    Raises:
        ConfigError: anything else.
    """
    if not data:
        return Extras()
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError) as error:
        raise ConfigError(f"The features cannot be read ({error}).", _HINT, setting="extras") from error
    unknown = sorted(set(tensors) - set(Extras._fields))
    if unknown:
        raise ConfigError(f"The features hold {unknown[0][:100]!r}.", _HINT, setting="extras")
    for name, tensor in tensors.items():
        _check(name, tensor)
    return Extras(**tensors)


def _check(name: str, tensor: Tensor) -> None:
    shape = list(tensor.shape)
    if tensor.ndim != 3 or tensor.shape[0] != 1 or not tensor.numel() or str(tensor.dtype) not in _FORMATS:
        raise ConfigError(f"{name} has the shape {shape} and the format {tensor.dtype}.",
                          "Needed: floats of shape [1, rows, width].", setting=name)  # fmt: skip
    if not tensor.isfinite().all():
        raise ConfigError(f"{name} holds values that are not finite.", _HINT, setting=name)
