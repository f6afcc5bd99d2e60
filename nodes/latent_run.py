"""Decode Wan video latents of any graph into a video file, piece by piece, on all GPUs of a model."""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from livetalk_core.daemon.client import Client
from livetalk_core.errors import DeadlineError
from livetalk_core.media import VideoWriter, frame_digest
from livetalk_core.production import ChunkRecord, Observer, VideoRequest, daemon_config, make_backend
from livetalk_core.production.backend import Watch

from .keeper import VAE_KEEPER, Keeper
from .placing import runs_in_daemon
from .recipes import LatentRecipe, ModelRecipe
from .runner import POLL_SECONDS, Event, Reins, VideoShape, View, run

Frames = NDArray[np.uint8]
Pieces = Generator[Frames, None, None]
STRIDE, TIME_STRIDE, GROUP_LATENTS = 8, 4, 4
_SAMPLE_RATE = 16_000
_PIECE_FRAMES = GROUP_LATENTS * TIME_STRIDE


def run_latents(recipe: LatentRecipe, output: Path, view: View, keeper: Keeper = VAE_KEEPER) -> str:
    """Decode into a video file; see `runner.run`.

    Args:
        recipe: What to decode.
        output: The .mp4 to write; several videos of a batch follow each other in it.
        view: Is told how it goes on.
        keeper: Where the VAE is kept between runs.

    Returns:
        The report, JSON: sizes, and times and a digest for every piece.
    """

    def work(reins: Reins) -> str:
        pieces = _from_daemon(recipe, keeper, reins) if runs_in_daemon(recipe.vae) else _from_here(recipe, reins)
        with closing(pieces):
            return _write(recipe, pieces, output, reins)

    return run(work, output, view)


def _write(recipe: LatentRecipe, pieces: Pieces, output: Path, reins: Reins) -> str:
    batch, _, length, rows, columns = recipe.latents.shape
    width, height, fps = columns * STRIDE, rows * STRIDE, recipe.fps
    count = batch * -(-length // GROUP_LATENTS)
    shape = VideoShape(width, height, fps, _SAMPLE_RATE, count)
    reins.tell(lambda view: view.opened(shape))
    records: list[ChunkRecord] = []
    begun = time.perf_counter()
    with VideoWriter(output, width, height, fps, _SAMPLE_RATE) as writer:
        for frames in pieces:
            writer.write(frames)
            seconds, begun = time.perf_counter() - begun, time.perf_counter()
            record = _record(frames, records, fps, seconds)
            records.append(record)
            reins.tell(_chunk_event(record, frames))
            reins.check()
    facts = {
        "format": "livetalk-decode-report", "version": 1, "vae": recipe.vae.name, "gpus": recipe.vae.gpus,
        "width": width, "height": height, "fps": fps, "frames": sum(record.frames for record in records),
        "tiled": recipe.tiled, "chunks": msgspec.to_builtins(records),
    }  # fmt: skip
    return json.dumps(facts, indent=1) + "\n"


def _chunk_event(record: ChunkRecord, frames: Frames) -> Event:
    silence = np.zeros(round(record.duration * _SAMPLE_RATE), np.float32)
    return lambda view: view.chunk(record, frames, silence)


def _record(frames: Frames, before: list[ChunkRecord], fps: int, seconds: float) -> ChunkRecord:
    first = sum(record.frames for record in before)
    return ChunkRecord(
        index=len(before), first_pts=first / fps, frames=len(frames), duration=len(frames) / fps, seconds=seconds,
        stages={"decode": seconds}, sha256=frame_digest(frames),
    )  # fmt: skip


def _from_daemon(recipe: LatentRecipe, keeper: Keeper, reins: Reins) -> Pieces:
    """Pieces from the ranks of a daemon, which is kept for the next run."""
    request = _request(recipe.vae)
    with keeper.using(recipe.vae, lambda: make_backend(request), reins.wait) as backend:
        reins.tell(lambda view: view.phase("loading_vae"))
        backend.load(Watch(Observer(), reins.stop.is_set))
        _, _, _, rows, columns = recipe.latents.shape
        shared = _share(recipe.latents)
        try:
            with (
                Client.start_or_join(daemon_config(request), poll=reins.check) as client,
                client.decode_latents(
                    shared, tuple(recipe.latents.shape), frames=_PIECE_FRAMES, height=rows * STRIDE,
                    width=columns * STRIDE, tiled=recipe.tiled, normalised=False,
                ) as stream,
            ):  # fmt: skip
                while True:
                    reins.check()
                    with suppress(DeadlineError):
                        piece = stream.next_chunk(POLL_SECONDS)
                        if piece is None:
                            return
                        yield piece.frames.copy()
        finally:
            os.close(shared)


def _from_here(recipe: LatentRecipe, reins: Reins) -> Pieces:
    """Pieces from this process, exact in any case."""
    # Late: with a daemon this process needs no model library.
    from livetalk_core.loading import load_vae

    reins.tell(lambda view: view.phase("loading_vae"))
    assert recipe.vae.folder is not None
    vae, _ = load_vae(recipe.vae.folder, recipe.vae.device, recipe.vae.dtype)
    for video in recipe.latents.split(1):
        for frames in vae.decode_frames(video.to(vae.device, vae.dtype)):
            reins.check()
            assert frames is not None
            yield frames.cpu().numpy()


def _request(vae: ModelRecipe) -> VideoRequest:
    return VideoRequest(
        "", Path(), model=vae.folder, device=vae.device, dtype=vae.dtype, world_size=vae.gpus,
    )  # fmt: skip


def _share(latents: torch.Tensor) -> int:
    """Descriptor of sealed shared memory with float32 latents."""
    import fcntl

    size = 4 * latents.numel()
    descriptor = os.memfd_create("livetalk-latents", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    with mmap.mmap(descriptor, size) as memory:
        target = np.frombuffer(memory, np.float32)
        target[:] = latents.reshape(-1).numpy()
        del target  # the map cannot be closed while something looks at it
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
