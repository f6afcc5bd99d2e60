"""What a daemon runs: the model, the ranks, the deadlines, how long it lives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from .. import __version__
from ..config import Offload, Settings, require
from ..errors import ConfigError
from .hosts import Hosts
from .wire import SCHEMA_VERSION

PACKAGE_ROOT = Path(__file__).resolve().parents[2]
MAX_WORLD = 64
WORKER = "livetalk_core.daemon.worker"


class Deadlines(Settings, frozen=True, kw_only=True):
    """Seconds that a phase may take; every wait has one, and the error names it."""

    start: float = 120.0
    load: float = 600.0
    compile: float = 900.0
    first_chunk: float = 60.0
    step: float = 10.0
    beat: float = 4.0
    failure_grace: float = 2.0
    abort: float = 1.0
    stop: float = 1.0
    terminate: float = 1.0
    reader: float = 10.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            require(0 < value <= 86_400, f"deadlines.{name}", value, "above 0, at most 86400 seconds")


class RankOptions(Settings, frozen=True, kw_only=True):
    """Settings of the ranks that few need, given as texts in `DaemonConfig.options`.

    Attributes:
        ulysses, ring: Degrees of the plan; by default the best.
        threads: CPU threads of a rank; by default its share of the machine.
        offload: See `load_model`.
        vae, image_encoder, text_encoder, audio_encoder, tokenizer: Files in place of the model folder's own.
    """

    ulysses: int | None = None
    ring: int | None = None
    threads: int | None = None
    offload: Offload = "auto"
    vae: str | None = None
    image_encoder: str | None = None
    text_encoder: str | None = None
    audio_encoder: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        for name in ("ulysses", "ring"):
            value = getattr(self, name)
            require(value is None or 1 <= value <= MAX_WORLD, name, value, f"1 to {MAX_WORLD}")
        require(self.threads is None or 1 <= self.threads <= 1024, "threads", self.threads, "1 to 1024")

    @classmethod
    def read(cls, options: Mapping[str, str]) -> RankOptions:
        """Texts as settings.

        Raises:
            ConfigError: an unknown name, or a text that is not such a value.
        """
        try:
            return msgspec.convert(dict(options), cls, strict=False)
        except msgspec.ValidationError as error:
            known = ", ".join(cls.__struct_fields__)
            raise ConfigError(f"options: {error}.", f"Known: {known}.", setting="options") from error


class DaemonConfig(Settings, frozen=True, kw_only=True):
    """One daemon.

    Attributes:
        model: A model folder, None for the embedded model, or a VAE's .safetensors file to decode latents only.
        revision: Changes when the model's files do: nobody joins a daemon with weights that were replaced.
        device: "auto", "cpu", "cuda" (rank N on cuda:N), or one device per rank: "cuda:2,cuda:3".
        dtype: Number format: "auto", "fp32", "bf16", "fp16".
        world_size: Number of ranks.
        attention: How the sequence is spread ("auto", "torch", "xfuser"), or the name of an attention kernel.
        compile: Compile the transformer's blocks.
        detached: Outlives its clients until the idle timeout or a Shutdown.
        idle_timeout: Seconds without a stream or request after which the daemon ends.
        grace: Seconds that an owned daemon waits for another client after its last one left.
        slots: Chunks that a stream's ring holds.
        options: Further settings for the ranks; see `RankOptions`.
        hosts: Spread the ranks over several hosts.
        worker: Module that runs as a rank; worker_path is searched for it first.
        runtime_root: Folder in place of the one that the system offers.
    """

    model: str | None = None
    revision: str = ""
    device: str = "auto"
    dtype: str = "auto"
    world_size: int = 1
    attention: str = "auto"
    compile: bool = False
    detached: bool = False
    idle_timeout: float = 600.0
    grace: float = 2.0
    slots: int = 4
    restarts: int = 3
    restart_window: float = 600.0
    deadlines: Deadlines = Deadlines()
    options: dict[str, str] = msgspec.field(default_factory=dict)
    hosts: Hosts | None = None
    worker: str = WORKER
    worker_path: tuple[str, ...] = ()
    runtime_root: str | None = None
    transport: Literal["unix", "tcp"] = "unix"

    def __post_init__(self) -> None:
        require(1 <= self.world_size <= MAX_WORLD, "world_size", self.world_size, f"1 to {MAX_WORLD}")
        require(2 <= self.slots <= 64, "slots", self.slots, "2 to 64")
        require(0 <= self.restarts <= 100, "restarts", self.restarts, "0 to 100")
        require(0 < self.restart_window < 1e9, "restart_window", self.restart_window, "above 0 seconds")
        require(0 < self.idle_timeout < 1e9, "idle_timeout", self.idle_timeout, "above 0 seconds")
        require(0 <= self.grace <= 3600, "grace", self.grace, "0 to 3600 seconds")
        if self.hosts is not None:
            world = self.hosts.world
            require(self.world_size == world, "world_size", self.world_size, f"{world}, the ranks on all hosts")
        if self.worker == WORKER:
            RankOptions.read(self.options)

    def key(self) -> str:
        """Which requests can share a daemon: the same model, ranks and code."""
        same = (
            self.model, self.revision, self.device, self.dtype, self.world_size, self.attention, self.compile,
            # Which cards "cuda:0" and so on mean.
            os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            sorted(self.options.items()), self.hosts, self.worker, self.worker_path,
            __version__, SCHEMA_VERSION, str(PACKAGE_ROOT),
        )  # fmt: skip
        return hashlib.sha256(msgspec.json.encode(same)).hexdigest()[:16]


class WorkerConfig(Settings, frozen=True, kw_only=True):
    """What one rank is told on its start, as a JSON file that only its user can read.

    Attributes:
        control: Descriptor of the socket to the supervisor.
        alive: Descriptor of a pipe that ends when the supervisor does; -1 where the parent's end says the same.
        parent: The supervisor's process.
        rendezvous: File over which the ranks of this generation find each other.
        generation: Counts the starts of the group.
        patience: Seconds that one rank waits for another within a collective.
    """

    rank: int
    world_size: int
    control: int
    alive: int
    parent: int
    rendezvous: str
    generation: int
    model: str | None
    revision: str
    device: str
    dtype: str
    attention: str
    compile: bool
    options: dict[str, str] = msgspec.field(default_factory=dict)
    patience: float = 120.0
    hosts: Hosts | None = None


class SupervisorConfig(Settings, frozen=True, kw_only=True):
    """What the supervisor is told on its start.

    Attributes:
        directory: Its runtime folder.
        alive: Descriptor of the locked file that says it lives.
        ready: Descriptor of the pipe on which it says that it listens.
    """

    daemon: DaemonConfig
    directory: str
    alive: int
    ready: int
