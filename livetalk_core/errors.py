"""What failed, whose fault it is and what to do; every class has a stable wire code."""

from __future__ import annotations

from typing import Any, ClassVar


class LiveTalkError(Exception):
    """Base of every error that LiveTalk raises on purpose.

    Args:
        message: What happened, naming the value, file, key, rank or device.
        hint: What the reader can do about it; may be empty.
        details: Machine-readable facts (file, key, rank, chunk ...), kept with the error on the wire.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class ConfigError(LiveTalkError):
    """A setting is unknown, of the wrong type or outside its range."""

    code = "bad_config"


class AudioError(LiveTalkError):
    """Sound that cannot be read or used."""

    code = "bad_audio"


class ImageError(LiveTalkError):
    """A picture that cannot be read or used."""

    code = "bad_image"


class CheckpointError(LiveTalkError):
    """A model folder or weight file that is missing, damaged or not what it should be."""

    code = "bad_checkpoint"


class StateError(LiveTalkError):
    """A saved stream state that does not fit the model or the settings."""

    code = "bad_state"


class OutputError(LiveTalkError):
    """A result that cannot be written."""

    code = "bad_output"


class DeviceError(LiveTalkError):
    """A device or number format this machine does not offer, or too little memory."""

    code = "bad_device"


class OutOfMemoryError(DeviceError):
    """The device's memory did not suffice; `details` has the bytes needed and free, where they are known."""

    code = "out_of_memory"


class NumericalError(LiveTalkError):
    """The model produced NaN or infinity; the stream is not continued from it."""

    code = "numerical"


class MissingDependencyError(LiveTalkError):
    """An optional library or program is not installed."""

    code = "missing_dependency"


class ParallelError(LiveTalkError):
    """The ranks of one world lost each other or no longer agree."""

    code = "parallel"


class TrainingError(LiveTalkError):
    """Training data or a training run that cannot go on."""

    code = "training"


class DaemonError(LiveTalkError):
    """Something between this program, the daemon and its ranks went wrong."""

    code = "daemon"


class DaemonUnavailableError(DaemonError):
    """No daemon answers: it could not be started, has ended, or gave up after too many restarts."""

    code = "daemon_unavailable"


class AccessError(DaemonError):
    """A folder, socket or caller that is not private to this user."""

    code = "access"


class ProtocolError(DaemonError):
    """Bytes that are not a message of this version, or a message that does not belong here."""

    code = "protocol"


class DeadlineError(DaemonError):
    """A phase took longer than its deadline allows."""

    code = "deadline"


class WorkerDiedError(DaemonError):
    """A rank's process ended."""

    code = "worker_died"


class WorkerHungError(DaemonError):
    """A rank's process is there but makes no progress."""

    code = "worker_hung"


class WorkerFailedError(DaemonError):
    """A rank raised an error that is not the user's mistake."""

    code = "worker_failed"


class StreamDroppedError(DaemonError):
    """A stream was given up: its reader stood still, or its daemon let it go."""

    code = "stream_dropped"


ERROR_CODES: dict[str, type[LiveTalkError]] = {
    cls.code: cls
    for cls in (
        LiveTalkError,
        ConfigError,
        AudioError,
        ImageError,
        CheckpointError,
        StateError,
        OutputError,
        DeviceError,
        OutOfMemoryError,
        NumericalError,
        MissingDependencyError,
        ParallelError,
        TrainingError,
        DaemonError,
        DaemonUnavailableError,
        AccessError,
        ProtocolError,
        DeadlineError,
        WorkerDiedError,
        WorkerHungError,
        WorkerFailedError,
        StreamDroppedError,
    )
}
"""Wire code -> class, for rebuilding an error that crossed a process boundary."""
