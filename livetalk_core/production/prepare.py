"""What decides the pixels is settled and checked before the model is loaded: settings, device, saved state."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
from PIL import Image

from ..config import StreamConfig, require
from ..daemon.daemon_config import MAX_WORLD
from ..errors import StateError
from ..loading.describe import describe_model
from ..loading.manifest import Manifest
from ..media import SoundReader, fit_size
from ..parallel.plan import plan_tokens, require_work
from .checks import open_request_sound
from .device import settled_device
from .request import VideoRequest

if TYPE_CHECKING:
    from ..engine import StreamState

_MAX_STATE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Job:
    """A request whose inputs are known to be good.

    Attributes:
        request: What was asked for.
        manifest: The model's name and defaults.
        dtype: Number format by name, "auto" included.
        config: All settings of the stream.
        picture: RGB.
        sound: Open, at its beginning; leaving the job as a context manager closes it.
        saved: Where to continue, or None.
    """

    request: VideoRequest
    manifest: Manifest
    dtype: str
    config: StreamConfig
    picture: Image.Image
    sound: SoundReader
    saved: StreamState | None

    @property
    def seconds(self) -> float | None:
        """Expected length of the video that is to be made; None where the sound does not tell."""
        total = self.sound.seconds_hint
        if total is None or self.saved is None:
            return total
        return max(0.0, total - self.saved.samples / self.config.geometry.sample_rate)

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sound.close()


def prepare(request: VideoRequest, picture: Image.Image) -> Job:
    """Check what files alone do not tell: model, settings, saved state, device; nothing is written.

    Args:
        request: Its files have been checked.
        picture: The person, RGB.

    Raises:
        StateError, CheckpointError, ConfigError, DeviceError, AudioError, MissingDependencyError: the first thing
            found wrong, with its remedy.
    """
    manifest = describe_model(request.model)
    saved = None if request.resume is None else read_state(request.resume)
    config = stream_config(request, manifest, picture.size, saved)
    if saved is not None:
        saved.identity.require_same(replace(saved.identity, config=config))
    if request.world_size is not None:
        require_world(request.world_size, config)
    dtype = _dtype_name(request, saved)
    device, _ = settled_device(request.device, dtype)
    if request.compile:
        # Late, like all that needs torch: ranks that are loaded already make a video without it.
        import torch

        from ..engine.compilation import require_compiler

        require_compiler(torch.device(device))
    sound = open_request_sound(request, config.geometry.sample_rate)
    return Job(request, manifest, dtype, config, picture, sound, saved)


def require_world(world: int, config: StreamConfig) -> None:
    """Refuse ranks that would have nothing to do, before any is started."""
    require(1 <= world <= MAX_WORLD, "world_size", world, f"1 to {MAX_WORLD}")
    geometry = config.geometry
    latent_hw = (config.height // geometry.spatial_stride, config.width // geometry.spatial_stride)
    require_work(world, plan_tokens(geometry.latent_frames, latent_hw))


def read_state(path: Path) -> StreamState:
    """Read a file written with `--state`.

    Raises:
        StateError: missing, no state, damaged, or at its end.
    """
    try:
        if path.stat().st_size > _MAX_STATE_BYTES:
            raise StateError(f"{path} is too large for a saved stream.", "Give a file written with --state.")
        data = path.read_bytes()
    except OSError as error:
        raise StateError(
            f"The saved stream {path} cannot be read ({error.strerror}).",
            "Give the file that was written with --state.",
            file=str(path),
        ) from error
    from ..engine import StreamState

    try:
        state = StreamState.from_bytes(data)
    except StateError as error:
        raise StateError(f"{path} cannot be continued: {error.message}", error.hint, **error.details) from error
    if state.ended:
        raise StateError(
            f"The saved stream {path} is at its end: no frames are left to make.",
            "Leave --resume out to make the video again.",
            file=str(path),
        )
    return state


def stream_config(
    request: VideoRequest, manifest: Manifest, picture_size: tuple[int, int], saved: StreamState | None
) -> StreamConfig:
    """The settings asked for; the others from the saved stream if there is one, else from the model.

    Raises:
        ConfigError: a value that is not allowed.
    """
    base = saved.identity.config if saved is not None else _default_config(request, manifest, picture_size)
    if saved is not None and request.size is not None:
        base = msgspec.structs.replace(base, width=request.size[0], height=request.size[1])
    sampler = msgspec.structs.replace(base.sampler, **_given(steps=request.steps, shift=request.shift))
    correction = msgspec.structs.replace(
        request.correction or base.correction,
        **_given(
            color_strength=request.color_strength,
            border_fade=request.border_fade,
            lookback=request.lookback,
            drift_threshold=request.drift_threshold,
            renoise=request.renoise,
            anchor=request.anchor,
        ),
    )
    audio = msgspec.structs.replace(base.audio, **_given(mode=request.mode, loudness=request.loudness))
    return msgspec.structs.replace(
        base,
        sampler=sampler,
        correction=correction,
        audio=audio,
        **_given(seed=request.seed, prompt=request.prompt, geometry=request.geometry),
    )


def _default_config(request: VideoRequest, manifest: Manifest, picture_size: tuple[int, int]) -> StreamConfig:
    defaults = manifest.defaults
    geometry = request.geometry or defaults.geometry
    step = 2 * geometry.spatial_stride
    width, height = request.size or fit_size(picture_size, defaults.width * defaults.height, step)
    return defaults.stream(width=width, height=height, geometry=geometry)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _dtype_name(request: VideoRequest, saved: StreamState | None) -> str:
    """On a resume "auto" means the number format that the stream was begun in."""
    return request.dtype if saved is None or request.dtype != "auto" else saved.identity.dtype
