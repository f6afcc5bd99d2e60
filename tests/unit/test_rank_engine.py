"""One rank's parts without processes: devices, options, memory errors, features, latents piece by piece."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from fakes.real import CONFIG, SLICE, STEPS, picture, speech
from safetensors.torch import load
from tiny_model import tiny_modules

from livetalk_core.config import StreamConfig
from livetalk_core.daemon import rank_engine
from livetalk_core.daemon.daemon_config import DaemonConfig, WorkerConfig
from livetalk_core.daemon.extras import pack_extras, unpack_extras
from livetalk_core.daemon.latent_decoding import LatentDecoding, map_latents
from livetalk_core.daemon.rank_device import memory_reported, rank_device
from livetalk_core.daemon.rank_engine import ModelRankEngine
from livetalk_core.daemon.rank_interface import Result, RunCancelled, RunContext, Standing
from livetalk_core.daemon.worker_messages import Open, OpenDecode, Restore, Run
from livetalk_core.errors import ConfigError, DeviceError, NumericalError, OutOfMemoryError, ParallelError
from livetalk_core.loading import load_vae
from livetalk_core.models.vae import WanVideoVAE, to_uint8
from livetalk_core.parallel.groups import Groups

pytestmark = pytest.mark.unit

ALONE = Groups(0, 1, torch.device("cpu"))
SHAPE = [2, 16, 6, 4, 6]
FRAME = 3 * 32 * 48


@pytest.fixture(scope="module")
def vae() -> WanVideoVAE:
    return WanVideoVAE(tiny_modules(2)["vae"])


def _cards(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[int(str(device).partition(":")[2])])


def test_every_rank_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [rank_device(setting, 1, 2) for setting in ("auto", "cpu")] == ["cpu", "cpu"]
    _cards(monkeypatch, "H100", "H100", "H100")
    for setting, devices in (
        ("auto", ["cuda:0", "cuda:1"]), ("cuda", ["cuda:0", "cuda:1"]), ("cuda:2, cuda:0", ["cuda:2", "cuda:0"]),
        ("cpu", ["cpu", "cpu"]),
    ):  # fmt: skip
        assert [rank_device(setting, rank, 2) for rank in range(2)] == devices
    assert rank_device("cuda:2", 0, 1) == "cuda:2"


@pytest.mark.parametrize(
    ("setting", "world", "message"),
    [
        ("auto", 3, "there is no cuda:2"),
        ("cuda:0,cuda:5", 2, "there is no cuda:5"),
        ("cuda:0", 2, "2 ranks were asked for on cuda:0"),
        ("cuda:0,cuda:0", 2, "Name one device for each rank"),
        ("tpu", 1, "there is no tpu"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, setting: str, world: int, message: str
) -> None:
    _cards(monkeypatch, "H100", "H100")
    for rank in range(world):
        with pytest.raises(DeviceError, match=message):
            rank_device(setting, rank, world)


def test_cards_of_different_kinds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _cards(monkeypatch, "H100", "RTX 4090")
    with pytest.raises(DeviceError, match="different cards: H100, RTX 4090"):
        rank_device("auto", 0, 2)


def test_options_are_checked_before_anything_starts() -> None:
    DaemonConfig(options={"ulysses": "2", "threads": "1", "vae": "/models/vae.safetensors"})
    for options in ({"ulyses": "2"}, {"ulysses": "two"}, {"threads": "0"}, {"ring": "65"}):
        with pytest.raises(ConfigError):
            DaemonConfig(options=options)


@pytest.mark.parametrize(
    ("error", "needed"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has"), 3 * 2**29),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4096 bytes."), 4096),
        (MemoryError(), None),
    ],
)
def test_lack_of_memory_is_one_error_with_its_numbers(error: Exception, needed: int | None) -> None:
    with pytest.raises(OutOfMemoryError, match="ran out of memory") as caught, memory_reported(torch.device("cpu")):
        raise error
    assert caught.value.details["needed"] == needed and caught.value.details["free"] > 0


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="illegal"), memory_reported(torch.device("cpu")):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_features_survive_the_way_and_others_do_not() -> None:
    context, image = torch.randn(1, 7, 16, dtype=torch.bfloat16), torch.randn(1, 5, 32)
    back = unpack_extras(pack_extras(context, image))
    assert torch.equal(back.context, context) and torch.equal(back.clip_features, image)
    assert unpack_extras(pack_extras()) == (None, None)
    assert unpack_extras(pack_extras(clip_features=image)).context is None
    from safetensors.torch import save

    for bad in (b"x", save({"other": image}), save({"context": image[0]}), save({"context": image.long()}),
                save({"context": image / 0}), b"\x80\x04\x95"):  # fmt: skip
        with pytest.raises(ConfigError):
            unpack_extras(bad)
    for tensor in (torch.zeros(2, 3, 4), torch.zeros(1, 0, 4), torch.full((1, 2, 3), float("nan"))):
        with pytest.raises(ConfigError):
            pack_extras(tensor)


def _decoding(vae: WanVideoVAE, latents: torch.Tensor, frames: int = 16, **fields: Any) -> LatentDecoding:
    command = OpenDecode(1, list(latents.shape), fields.pop("tiled", False), 4, frames * FRAME, **fields)
    return LatentDecoding(vae, ALONE, command, latents)


@pytest.mark.parametrize(("frames", "lengths"), [(16, [13, 8] * 2), (4, [1, 4, 4, 4, 4, 4] * 2), (8, [5, 8, 8] * 2)])
def test_latents_come_out_in_pieces_that_fit(vae: WanVideoVAE, frames: int, lengths: list[int]) -> None:
    latents = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    decoding = _decoding(vae, latents, frames)
    pieces = [decoding.piece(number) for number in range(decoding.pieces)]
    assert [len(piece) for piece in pieces if piece is not None] == lengths
    assert [decoding.first_frame(n) for n in range(len(lengths))] == list(np.cumsum([0, *lengths[:-1]]))
    with torch.no_grad():
        whole = to_uint8(vae.decode(latents)).permute(0, 2, 3, 4, 1).flatten(0, 1)
    off = (torch.cat(pieces).int() - whole.int()).abs()
    assert off.max() <= 1 and (off > 0).float().mean() < 1e-3
    # After a restart a later piece is asked for first; then one before it.
    for number in (2, 3, 1):
        assert torch.equal(_decoding(vae, latents, frames).piece(number), pieces[number])
        assert torch.equal(decoding.piece(number), pieces[number])


def test_latents_say_whether_they_are_normalised(vae: WanVideoVAE) -> None:
    latents = torch.randn(1, 16, 1, 4, 6, generator=torch.Generator().manual_seed(2))
    raw = vae.unnormalise(latents)
    assert torch.equal(_decoding(vae, raw, 1, normalised=False).piece(0), _decoding(vae, latents, 1).piece(0))
    assert not torch.equal(_decoding(vae, latents, 1, normalised=False).piece(0), _decoding(vae, latents, 1).piece(0))


@pytest.mark.parametrize(
    ("latents", "frames", "error", "message"),
    [
        (torch.zeros(1, 4, 2, 4, 6), 16, ConfigError, "have 4 channels, this VAE decodes 16"),
        (torch.zeros(1, 16, 2, 4, 6), 3, ConfigError, "one latent frame makes 4"),
        (torch.full((1, 16, 2, 4, 6), float("inf")), 16, NumericalError, "NaN or infinity"),
    ],
)
def test_latents_that_cannot_be_decoded(
    vae: WanVideoVAE, latents: torch.Tensor, frames: int, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _decoding(vae, latents, frames)


def _memory(latents: torch.Tensor) -> int:
    descriptor = os.memfd_create("latents")
    os.write(descriptor, latents.numpy().tobytes())
    return descriptor


def test_latents_are_mapped_and_their_descriptor_closed() -> None:
    latents = torch.randn(1, 16, 2, 3, 4)
    descriptor = _memory(latents)
    assert torch.equal(map_latents(descriptor, [1, 16, 2, 3, 4]), latents)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def _engine(model: str | None, life: ExitStack) -> ModelRankEngine:
    config = WorkerConfig(
        rank=0, world_size=1, control=-1, alive=-1, parent=0, rendezvous="", generation=1, model=model, revision="",
        device="cpu", dtype="fp32", attention="auto", compile=False,
    )  # fmt: skip
    return ModelRankEngine(config, life)


def test_a_vae_alone_decodes_and_makes_no_streams(tiny_model_folder: Path) -> None:
    path = tiny_model_folder / "vae" / "diffusion_pytorch_model.safetensors"
    alone, revision = load_vae(path, "cpu", "fp32")
    latents = torch.randn(1, 16, 1, 4, 6, generator=torch.Generator().manual_seed(3))
    with ExitStack() as life:
        engine = _engine(str(path), life)
        info = engine.load()
        assert (info.kind, info.revision, info.name) == ("vae", revision, "diffusion_pytorch_model")
        engine.open_decode(OpenDecode(1, [1, 16, 1, 4, 6], False, 2, FRAME), _memory(latents))
        assert torch.equal(engine._decodings[1].piece(0), _decoding(alone, latents, 1).piece(0))
        config = msgspec.json.encode(StreamConfig(width=64, height=64))
        with pytest.raises(ConfigError, match="makes no streams"):
            engine.open(Open(2, config, b"", 0, b"", 2, 1))


class Supervisor:
    """A line whose other end does not want the chunk any more after so many reports."""

    def __init__(self, leave_at: int = -1) -> None:
        self.seen: list[tuple[str, int]] = []
        self._leave_at = leave_at

    def cancelled(self, stream: int, epoch: int) -> bool:
        return len(self.seen) == self._leave_at

    def progress(self, phase: str, stream: int, chunk: int, step: int, steps: int, *, completed: bool) -> None:
        self.seen.append((phase, step))


def _run(engine: ModelRankEngine, line: Any, chunk: int = 0) -> Result:
    return engine.run(RunContext(line, Run(1, 0, chunk, 0, speech(1).tobytes()), None))


@pytest.fixture
def opened(tiny_model_folder: Path) -> Iterator[ModelRankEngine]:
    """An engine with a stream."""
    with ExitStack() as life:
        engine = _engine(str(tiny_model_folder), life)
        engine.load()
        assert engine.open(Open(1, msgspec.json.encode(CONFIG), picture(), 0, b"", 2, 1)) == Standing()
        yield engine


def test_a_chunk_is_left_at_any_place_and_made_again(opened: ModelRankEngine) -> None:
    whole = Supervisor()
    undisturbed = _run(opened, whole)
    steps = [("step", step) for step in range(STEPS)]
    assert whole.seen == [("audio", 0), *steps, ("decode", STEPS), ("finish", STEPS)]
    for place, (_, step) in enumerate(whole.seen):
        assert opened.restore(Restore(1, b"")) == Standing()
        with pytest.raises(RunCancelled) as left:
            _run(opened, Supervisor(leave_at=place + 1))
        assert left.value.step == step
        ours, theirs = (load(result.state) for result in (_run(opened, Supervisor()), undisturbed))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    with pytest.raises(ParallelError, match="stands at chunk 1, asked for is 0"):
        _run(opened, Supervisor())
    assert opened.restore(Restore(1, undisturbed.state)) == Standing(1, SLICE, False)


def test_state_that_no_message_can_carry_is_refused(
    opened: ModelRankEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_engine, "MAX_STATE", 1000)
    with pytest.raises(ConfigError, match=r"64x64 stream has .* at most 1000"):
        _run(opened, Supervisor())


def test_embedded_vae_refuses_the_latents_of_others() -> None:
    with ExitStack() as life:
        engine = _engine(None, life)
        with pytest.raises(ConfigError, match="latents of its own"):
            engine.open_decode(OpenDecode(1, SHAPE, False, 2, FRAME, normalised=False), _memory(torch.zeros(SHAPE)))
