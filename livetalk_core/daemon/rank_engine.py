"""The engine of one rank: streams, clips and decodings, in step with all other ranks."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor

from ..config import StreamConfig, decode_config
from ..engine import EncodedClip, Engine, Progress, Stream, StreamState
from ..errors import ConfigError, ParallelError
from ..media import decode_picture
from ..parallel.agreement import any_rank, require_agreement
from ..parallel.groups import Groups
from .daemon_config import WorkerConfig
from .extras import unpack_extras
from .latent_decoding import LatentDecoding, map_latents
from .messages import ModelInfo
from .rank_device import memory_reported
from .rank_interface import Result, RunCancelled, RunContext, Standing
from .rank_model import RankModel, load_rank_model, meet_ranks, require_plan
from .wire import MAX_STATE
from .worker_messages import Encode, Open, OpenDecode, Phase, Restore

_EMBEDDED = (None, "embedded")


class ModelRankEngine:
    """See `RankEngine`. All ranks get the same commands; what each method does is collective.

    Args:
        config: This rank.
        life: Holds what lives as long as the process: the world of ranks.
        groups: That world, where it has been met already.
    """

    def __init__(self, config: WorkerConfig, life: ExitStack, groups: Groups | None = None) -> None:
        self._config, self._life, self._groups = config, life, groups
        self._streams: dict[int, Stream] = {}
        self._clips: dict[int, EncodedClip] = {}
        self._decodings: dict[int, LatentDecoding] = {}
        self._compiled: set[tuple[int, int, int]] = set()
        self._model: RankModel
        self._engine: Engine | None

    def load(self) -> ModelInfo:
        """Meet the other ranks and load the model."""
        self._groups = self._groups or self._life.enter_context(meet_ranks(self._config))
        self._model = load_rank_model(self._config, self._groups)
        self._engine = None if self._model.bundle is None else Engine(self._model.bundle)
        return self._model.info

    def encode(self, command: Encode) -> int:
        """Encode a clip and keep it; returns its video frames."""
        config = decode_config(StreamConfig, command.config, "stream settings")
        with memory_reported(self._model.groups.device):
            clip = self.engine().encode_whole(_sound(command.samples), config)
        self._clips[command.clip] = clip
        return clip.frames

    def open(self, command: Open) -> Standing:
        """Open a stream, at its beginning or where a state left it."""
        config = decode_config(StreamConfig, command.config, "stream settings")
        engine, groups = self.engine(), self._model.groups
        require_plan(groups, engine.bundle, config.geometry, (config.width, config.height))
        picture, extras = decode_picture(command.picture), unpack_extras(command.extras)
        state = StreamState.from_bytes(command.state) if command.state else None
        with memory_reported(groups.device):
            stream = engine.open_stream(
                config, picture, clip=self._clips[command.clip] if command.clip else None, state=state,
                **extras._asdict(),
            )  # fmt: skip
        self._require_same_noise(stream)
        self._streams[command.stream] = stream
        return _standing(stream)

    def open_decode(self, command: OpenDecode, latents: int) -> None:
        """Open a decoding of the latents in a descriptor."""
        given = map_latents(latents, command.shape)
        if not command.normalised and self._config.model in _EMBEDDED:
            raise ConfigError(
                "The embedded model's VAE has latents of its own; it cannot decode those of other programs.",
                "Load a Wan 2.1 VAE.", setting="model",
            )  # fmt: skip
        with memory_reported(self._model.groups.device):
            self._decodings[command.stream] = LatentDecoding(self._model.vae, self._model.groups, command, given)

    def restore(self, command: Restore) -> Standing:
        """Put a stream back to a state; b"" is its beginning."""
        if command.stream in self._decodings:
            return Standing()  # every piece says which one it is
        stream = self._streams[command.stream]
        stream.restore(StreamState.from_bytes(command.state) if command.state else None)
        return _standing(stream)

    def run(self, context: RunContext) -> Result:
        """Make a chunk, or a piece of a decoding."""
        with memory_reported(self._model.groups.device):
            if context.command.stream in self._decodings:
                return self._decode(self._decodings[context.command.stream], context)
            return self._step(self._streams[context.command.stream], context)

    def close(self, stream: int) -> None:
        """Forget a stream."""
        self._streams.pop(stream, None)
        self._decodings.pop(stream, None)

    def forget_clip(self, clip: int) -> None:
        """Forget a clip."""
        self._clips.pop(clip, None)

    def engine(self) -> Engine:
        """What streams are opened on; ConfigError where only a VAE is loaded."""
        if self._engine is None:
            raise ConfigError(
                f"Only the VAE {self._model.info.name} is loaded: it decodes latents and makes no streams.",
                "Load a model folder.", setting="model",
            )  # fmt: skip
        return self._engine

    def _step(self, stream: Stream, context: RunContext) -> Result:
        command, config = context.command, stream.constants.config
        if stream.state.chunk != command.chunk:
            raise ParallelError(f"The stream stands at chunk {stream.state.chunk}, asked for is {command.chunk}.")
        samples = None if stream.constants.clip is not None else _sound(command.samples)
        target = (lambda shape: None) if context.ring is None else context.begin_frames
        latents: list[Tensor] = []
        chunk = stream.step(
            samples, lambda name, tensor: latents.append(tensor) if name == "latent_final" else None,
            self._watch(context, config), target,
        )  # fmt: skip
        if context.ring is not None:
            context.finish_frames(chunk.frames.shape, chunk.first_frame)
        state = stream.state.to_bytes()
        if len(state) > MAX_STATE:
            raise ConfigError(
                f"The state of a {config.width}x{config.height} stream has {len(state)} bytes, a daemon keeps at most "
                f"{MAX_STATE}.", "Use smaller pictures, or the engine without a daemon.", setting="size",
            )  # fmt: skip
        # Motion latents alone would not do: they are put together from all ranks' tiles, the same everywhere.
        compared = [*latents, *(tensor for _, tensor in sorted(load(state).items()))]
        numbers = [stream.state.chunk, stream.state.samples, int(stream.state.ended)]
        require_agreement(self._model.groups, f"state after chunk {command.chunk}", numbers, compared)
        if self._config.compile:
            self._compiled.add(_shape(config))
        return Result(state, stream.state.ended, chunk.timings, chunk.stats)

    def _decode(self, decoding: LatentDecoding, context: RunContext) -> Result:
        number = context.command.chunk
        context.at("decode", number, decoding.pieces)
        self.leave_together(context, 0)
        frames = decoding.piece(number)
        if context.ring is not None and frames is not None:
            shape = tuple(frames.shape)
            torch.from_numpy(context.begin_frames(shape)).copy_(frames)
            context.finish_frames(shape, decoding.first_frame(number))
        self._settle()
        return Result(final=number + 1 == decoding.pieces)

    def _watch(self, context: RunContext, config: StreamConfig) -> Progress:
        """Says where the chunk is and leaves it when any rank has heard that it is to be left."""
        warm = not self._config.compile or _shape(config) in self._compiled

        def progress(phase: Phase, step: int, steps: int) -> None:
            self._settle()
            shown: Phase = phase if warm or phase != "step" else "compiling"
            # Said first: whoever hears of a cancellation from here on leaves before the next one, if not before this.
            context.at(shown, step, steps, completed=phase != "audio")
            self.leave_together(context, step)

        return progress

    def leave_together(self, context: RunContext, step: int) -> None:
        """Leave the chunk if any rank has heard that it is to be left; collective."""
        if any_rank(self._model.groups, context.cancelled):
            raise RunCancelled(step)

    def _settle(self) -> None:
        """Wait for what is queued: only what is done counts as progress, and nothing runs ahead of a cancellation."""
        if self._model.groups.device.type == "cuda":
            torch.cuda.synchronize(self._model.groups.device)

    def _require_same_noise(self, stream: Stream) -> None:
        constants, state = stream.constants, stream.state
        shape = (1, *constants.first_motion.shape[1:])
        noise = constants.noise.draw(state.chunk, 0, shape)
        require_agreement(self._model.groups, "initial noise", [state.chunk, state.samples], [noise])


def _sound(data: bytes) -> NDArray[np.float32]:
    return np.frombuffer(data, "<f4")


def _shape(config: StreamConfig) -> tuple[int, int, int]:
    return config.width, config.height, config.geometry.frames


def _standing(stream: Stream) -> Standing:
    return Standing(stream.state.chunk, stream.state.samples, stream.state.ended)
