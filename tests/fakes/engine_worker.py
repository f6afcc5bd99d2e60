"""A rank without a model: the worker protocol, frames that say which stream and chunk they are, scripted faults.

Options: `faults` (see `faults.script`), `steps` per chunk, `step_seconds`, `state_bytes`.
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time

from fakes.faults import Injector
from livetalk_core.chunking import total_frames
from livetalk_core.config import StreamConfig, decode_config
from livetalk_core.daemon.messages import ModelInfo
from livetalk_core.daemon.rank_interface import Result, RunContext, Standing
from livetalk_core.daemon.worker_link import WorkerLink
from livetalk_core.daemon.worker_loop import WorkerLoop, read_worker_config
from livetalk_core.daemon.worker_messages import Encode, Open, OpenDecode, Restore
from livetalk_core.errors import CheckpointError, ImageError, OutOfMemoryError


def fake_frames(seed: int, stream: int, chunk: int, heard: str, frames: int, height: int, width: int):
    """The frames of a chunk: uint8 [F,H,W,3]; stream and chunk in the first two pixels, the rest from the sound."""
    import numpy as np

    key = int(hashlib.sha256(f"{seed} {chunk} {heard}".encode()).hexdigest()[:8], 16)
    ramp = np.arange(frames * height * width * 3, dtype=np.uint32) * 2654435761 + key
    video = (ramp >> 24).astype(np.uint8).reshape(frames, height, width, 3)
    video[:, 0, 0] = stream % 256
    video[:, 0, 1] = chunk % 256
    return video


def digest(heard: str, samples: bytes) -> str:
    """What a stream has heard, as a chain of digests."""
    return hashlib.sha256(heard.encode() + samples).hexdigest()


class FakeStream:
    """One stream: settings and where it stands."""

    def __init__(self, config: StreamConfig, state: bytes, clip: int) -> None:
        self.config, self.clip = config, clip
        self.restore(state)

    def restore(self, state: bytes) -> None:
        """Continue from a state; b"" is the beginning."""
        fields = json.loads(state.rstrip(b" ")) if state else {"chunk": 0, "samples": 0, "heard": ""}
        self.chunk, self.samples, self.heard = fields["chunk"], fields["samples"], fields["heard"]

    @property
    def standing(self) -> Standing:
        """Where it stands."""
        return Standing(self.chunk, self.samples)

    def to_bytes(self, size: int) -> bytes:
        """The state, padded to a size."""
        fields = {"chunk": self.chunk, "samples": self.samples, "heard": self.heard}
        return json.dumps(fields).encode().ljust(size)


class FakeEngine:
    """See `RankEngine`.

    Args:
        link: The line to the supervisor.
        injector: What breaks.
    """

    def __init__(self, link: WorkerLink, injector: Injector) -> None:
        options = link.config.options
        self.rank, self.injector = link.config.rank, injector
        self.steps = int(options.get("steps", "4"))
        self.step_seconds = float(options.get("step_seconds", "0"))
        self.state_bytes = int(options.get("state_bytes", "0"))
        self.streams: dict[int, FakeStream] = {}
        self.clips: dict[int, int] = {}
        self.decodings: dict[int, tuple[int, ...]] = {}

    def load(self) -> ModelInfo:
        if self.injector.has("bad_load"):
            raise CheckpointError("weights.safetensors is damaged.", "Download it again.", file="weights.safetensors")
        if self.injector.has("no_memory_to_load"):
            raise OutOfMemoryError("cuda:0 ran out of memory: 40.00 GiB needed, 24.00 GiB free.", "Use bf16.", free=24)
        return ModelInfo("fake", "0", "cpu", "float32")

    def encode(self, command: Encode) -> int:
        config = decode_config(StreamConfig, command.config, "settings")
        self.clips[command.clip] = total_frames(len(command.samples) // 4, config.geometry)
        return self.clips[command.clip]

    def open(self, command: Open) -> Standing:
        if command.picture == b"not a picture":
            raise ImageError("The picture cannot be read.", "Give a PNG.")
        config = decode_config(StreamConfig, command.config, "settings")
        self.streams[command.stream] = FakeStream(config, command.state, command.clip)
        return self.streams[command.stream].standing

    def open_decode(self, command: OpenDecode, latents: int) -> None:
        import os

        assert os.fstat(latents).st_size > 0
        os.close(latents)
        self.decodings[command.stream] = tuple(command.shape)

    def restore(self, command: Restore) -> Standing:
        self.streams[command.stream].restore(command.state)
        return self.streams[command.stream].standing

    def run(self, context: RunContext) -> Result:
        command = context.command
        for step in range(self.steps):
            context.between_steps(step, self.steps)
            self.injector.at(command.chunk, step)
            time.sleep(self.step_seconds)
        context.between_steps(self.steps, self.steps)
        context.at("finish", completed=True)
        self.injector.at(command.chunk, self.steps)
        if command.stream in self.decodings:
            return self._decode(context)
        stream = self.streams[command.stream]
        assert stream.chunk == command.chunk, f"asked for chunk {command.chunk}, at {stream.chunk}"
        geometry, samples = stream.config.geometry, len(command.samples) // 4
        first = stream.chunk * geometry.slice_frames
        if stream.clip:
            frames = min(geometry.slice_frames, self.clips[stream.clip] - first)
            final = first + frames >= self.clips[stream.clip]
        else:
            frames = max(1, min(total_frames(stream.samples + samples, geometry) - first, geometry.slice_frames))
            final = samples < geometry.slice_samples
        stream.heard = digest(stream.heard, command.samples)
        if context.ring is not None:
            config = stream.config
            video = fake_frames(
                config.seed, command.stream, command.chunk, stream.heard, frames, config.height, config.width
            )
            context.begin_frames(video.shape)[...] = video
            context.finish_frames(video.shape, first)
        stream.chunk, stream.samples = stream.chunk + 1, stream.samples + samples
        return Result(stream.to_bytes(self.state_bytes), final, {"denoise": 0.0}, {"peak_latent": 1.0})

    def close(self, stream: int) -> None:
        self.streams.pop(stream, None)
        self.decodings.pop(stream, None)

    def forget_clip(self, clip: int) -> None:
        self.clips.pop(clip, None)

    def _decode(self, context: RunContext) -> Result:
        shape, chunk = self.decodings[context.command.stream], context.command.chunk
        if context.ring is not None:
            frames, height, width = 4 if chunk else 1, shape[3] * 8, shape[4] * 8
            video = fake_frames(0, context.command.stream, chunk, "", frames, height, width)
            context.begin_frames(video.shape)[...] = video
            context.finish_frames(video.shape, 0 if chunk == 0 else 4 * chunk - 3)
        return Result(final=chunk + 1 == shape[2])


def main() -> int:
    """Entry of the process."""
    config = read_worker_config()
    injector = Injector(config.options.get("faults", ""), config.rank, config.generation)
    if injector.has("exit_at_import"):
        sys.stderr.write("ImportError: scripted fault\n")
        return 3
    if injector.has("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    link = WorkerLink(config)
    if injector.has("never_ready"):
        time.sleep(3600)
    loop = WorkerLoop(link, FakeEngine(link, injector))
    loop.serve()
    if injector.has("ignore_sigterm"):
        time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
