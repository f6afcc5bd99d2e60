"""This process or ranks: the backend that a request asks for."""

from __future__ import annotations

from .backend import Backend
from .request import VideoRequest


def make_backend(request: VideoRequest, dtype: str | None = None) -> Backend:
    """The backend that a request asks for, not loaded yet; close it when it is not needed any more.

    Whoever makes several videos keeps it and gives it to `produce` each time.

    Args:
        request: Its model, device, number format and world size are used.
        dtype: In place of the request's number format.

    Raises:
        DeviceError: a device or number format that this machine does not offer.
        ConfigError: a world that cannot be.
    """
    # Late: only one of them is needed.
    if request.world_size is None:
        from .local_backend import LocalBackend

        return LocalBackend(
            request.model, request.device, dtype or request.dtype, offload=request.offload, compiled=request.compile
        )
    from .daemon_backend import DaemonBackend, daemon_config

    return DaemonBackend(daemon_config(request, dtype))
