"""Everything a stream needs to go on after a restart, as a value and as safetensors bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from ..audio import AudioRing
from ..config import StreamConfig
from ..errors import StateError
from ..retrospective import Appearance

_FORMAT, _VERSION = "livetalk-state", 1
_MAX_BYTES = 64 * 2**20
_MAX_COUNT = 2**53
_ANCHOR = "anchor_"
_START_OVER = "Start the video from the beginning, or resume with the state file that belongs to it."


@dataclass(frozen=True)
class StreamIdentity:
    """What a stream is made of; a state continues only a stream with the same identity.

    Attributes:
        revision: Fingerprint of the model's weights.
        dtype: Number format the model computes in.
        config: Settings of the stream.
        conditions: Digest of the reference picture and of given text or image features.
        clip: Digest of the encoded sound in whole mode, else "".
    """

    revision: str
    dtype: str
    config: StreamConfig
    conditions: str
    clip: str = ""

    def require_same(self, other: StreamIdentity) -> None:
        """Raise StateError naming what differs between a saved identity (self) and the one at hand."""
        saved, here = (_flatten(msgspec.to_builtins(identity.config)) for identity in (self, other))
        for key, value in here.items():
            if saved.get(key) != value:
                raise StateError(
                    f"The saved stream has {key} = {saved.get(key)!r}, the settings now say {value!r}.",
                    _START_OVER, setting=key,
                )  # fmt: skip
        names = {"revision": "model", "dtype": "number format", "conditions": "picture", "clip": "sound"}
        for name, meaning in names.items():
            before, now = getattr(self, name), getattr(other, name)
            if before != now:
                raise StateError(
                    f"The saved stream was made with another {meaning} ({before[:16]}, now {now[:16]}).",
                    _START_OVER, field=name,
                )  # fmt: skip


@dataclass(frozen=True)
class StreamState:
    """Where a stream stands between two chunks.

    Attributes:
        identity: The stream it belongs to.
        chunk: Number of the next chunk.
        samples: Audio samples consumed so far.
        ended: The sound is over; no chunk follows.
        motion: Motion latents [1,16,m,h,w] for the next chunk; None before the first.
        ring: The sliding audio window; empty in whole mode.
        history: Motion latents of earlier chunk borders [1,16,n*m,h,w], oldest first, for re-anchoring; None where
            the settings need none.
        anchor: What the first chunk looked like, where drift is measured against that.
        border: The last frame shown [1,3,1,H,W], where the border to the next chunk is to be hidden.
    """

    identity: StreamIdentity
    chunk: int
    samples: int
    ended: bool
    motion: Tensor | None
    ring: AudioRing
    history: Tensor | None = None
    anchor: Appearance | None = None
    border: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the state by name, where they lie."""
        optional = {"motion": self.motion, "history": self.history, "border": self.border}
        anchor = {} if self.anchor is None else {_ANCHOR + name: value for name, value in vars(self.anchor).items()}
        present = {name: tensor for name, tensor in optional.items() if tensor is not None}
        return {"ring": torch.from_numpy(self.ring.samples), **present, **anchor}

    def to_bytes(self) -> bytes:
        """The state as a safetensors file."""
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors().items()}
        fields = {
            "identity": msgspec.to_builtins(self.identity),
            "chunk": self.chunk,
            "samples": self.samples,
            "ended": self.ended,
        }
        metadata = {"format": _FORMAT, "version": str(_VERSION), "state": json.dumps(fields, sort_keys=True)}
        return bytes(save_tensors(tensors, metadata))

    @classmethod
    def from_bytes(cls, data: bytes, device: torch.device | str = "cpu") -> StreamState:
        """Read what `to_bytes` wrote.

        Raises:
            StateError: the bytes are not a state, are damaged, or of another version.
        """
        if len(data) > _MAX_BYTES:
            raise StateError(f"The state is {len(data)} bytes long.", f"At most {_MAX_BYTES} are read.")
        try:
            fields = msgspec.convert(json.loads(_metadata(data)["state"]), _Fields, strict=True)
            tensors = load_tensors(data)
            ring = tensors.pop("ring").numpy()
            latents = {name: tensors.pop(name, None) for name in ("motion", "history", "border")}
            anchor = _pop_anchor(tensors)
        except StateError:
            raise
        except Exception as error:  # the readers raise their own kinds for damaged bytes
            raise StateError("This is no saved stream, or a damaged one.", _START_OVER) from error
        _check(fields, ring, latents, anchor, tensors)
        motion, history, border = (None if tensor is None else tensor.to(device) for tensor in latents.values())
        return cls(
            fields.identity, fields.chunk, fields.samples, fields.ended, motion, AudioRing(ring), history,
            None if anchor is None else anchor.to(device), border,
        )  # fmt: skip


class _Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The part of a state that is not tensors."""

    identity: StreamIdentity
    chunk: int
    samples: int
    ended: bool


def digest(*tensors: Tensor) -> str:
    """SHA-256 over shapes, dtypes and bytes of tensors."""
    sha = hashlib.sha256()
    for tensor in tensors:
        sha.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        sha.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _metadata(data: bytes) -> dict[str, Any]:
    """Metadata of safetensors bytes; StateError if they are no state of this version."""
    (length,) = struct.unpack_from("<Q", data)
    if length > len(data) - 8:
        raise ValueError("header is cut off")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    if metadata.get("format") != _FORMAT:
        raise StateError("The file is not a saved stream.", "Give a file that was written with --state.")
    version = metadata.get("version")
    if version != str(_VERSION):
        raise StateError(f"The state has version {version!r}, this program reads {_VERSION}.", _START_OVER)
    return dict(metadata)


def _pop_anchor(tensors: dict[str, Tensor]) -> Appearance | None:
    """Take the anchor out of a state's tensors; KeyError if it is there in part."""
    if not any(name.startswith(_ANCHOR) for name in tensors):
        return None
    return Appearance(**{field.name: tensors.pop(_ANCHOR + field.name) for field in dataclasses.fields(Appearance)})


def _check(
    fields: _Fields,
    ring: Any,
    latents: dict[str, Tensor | None],
    anchor: Appearance | None,
    rest: dict[str, Tensor],
) -> None:
    """Refuse values that no stream can have."""
    motion, history, border = latents["motion"], latents["history"], latents["border"]
    problems = {
        f"chunk {fields.chunk}": not 0 <= fields.chunk < _MAX_COUNT,
        f"{fields.samples} samples": not 0 <= fields.samples < _MAX_COUNT,
        f"unknown tensors {sorted(rest)}": bool(rest),
        f"a sound window of type {ring.dtype}": ring.dtype != np.float32 or ring.ndim != 1,
        "motion latents before the first chunk, or none after it": (motion is None) != (fields.chunk == 0),
        "a history before the first chunk": history is not None and fields.chunk == 0,
        "a border before the first chunk": border is not None and fields.chunk == 0,
    }
    if not any(problems.values()):
        problems["samples that are not finite"] = not np.isfinite(ring).all()
        problems["motion latents that are not finite"] = not _finite(motion, history)
        problems["a frame that is not finite"] = not _finite(border)
        problems["an anchor that is not finite"] = anchor is not None and not _finite(*vars(anchor).values())
    for problem, present in problems.items():
        if present:
            raise StateError(f"The state holds {problem}.", _START_OVER)


def _finite(*tensors: Tensor | None) -> bool:
    return all(tensor is None or bool(tensor.isfinite().all()) for tensor in tensors)


def _flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
