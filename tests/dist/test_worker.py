"""Real ranks behind a daemon show what one engine in this process shows."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes.daemons import addresses, running
from fakes.real import CONFIG, SLICE, WHOLE, expected, off_by, picture, read, real_config, sha, speech

from livetalk_core.daemon.client import Client
from livetalk_core.daemon.daemon_config import Deadlines
from livetalk_core.daemon.extras import pack_extras
from livetalk_core.daemon.messages import Event, Progress
from livetalk_core.engine.compilation import find_compiler
from livetalk_core.errors import ConfigError, ImageError, StateError
from livetalk_core.loading import load_model
from livetalk_core.models.vae import to_uint8

pytestmark = [pytest.mark.dist, pytest.mark.timeout(300)]


def test_one_rank_shows_the_engines_frames_bit_for_bit(tmp_path: Path, tiny_model_folder: Path) -> None:
    wanted = expected(tiny_model_folder, 3.5)
    with running(real_config(tmp_path, tiny_model_folder, world=1)) as client:
        with client.open_stream(CONFIG, picture(), want_state=True) as stream:
            stream.push_audio(speech(3.5), final=True)
            chunks = list(stream.chunks(60))
        assert [sha(chunk.frames) for chunk in chunks] == [sha(chunk.frames) for chunk in wanted]
        assert [chunk.first_frame for chunk in chunks] == [chunk.first_frame for chunk in wanted]
        assert set(chunks[0].timings) == set(wanted[0].timings) and chunks[0].stats == wanted[0].stats
        # From the state that came with the second chunk, as if nothing had been in between.
        with client.open_stream(CONFIG, picture(), state=chunks[1].state) as stream:
            assert (stream.chunk, stream.samples) == (2, 2 * SLICE)
            stream.push_audio(speech(3.5)[2 * SLICE :], final=True)
            assert [sha(frames) for frames in read(stream)] == [sha(chunk.frames) for chunk in wanted[2:]]
        with client.open_stream(CONFIG, picture(), state=chunks[-1].state) as stream:
            assert stream.next_chunk(30) is None, "the sound of this state is over"
        clip = client.encode_audio(speech(2.5), WHOLE)
        with client.open_stream(WHOLE, picture(), clip=clip.clip) as stream:
            assert [sha(frames) for frames in read(stream)] == [
                sha(chunk.frames) for chunk in expected(tiny_model_folder, 2.5, config=WHOLE)
            ]
        for wrong, error in (({"picture": b"no picture"}, ImageError), ({"state": b"no state"}, StateError)):
            with pytest.raises(error):
                client.open_stream(CONFIG, **{"picture": picture(), **wrong})
        with pytest.raises(ConfigError, match="features"):
            client.open_stream(CONFIG, picture(), extras=b"no features")
        assert client.stats().restarts == 0


def _check_features(client: Client) -> None:
    """Features that were given take the place of the picture's; ones that do not fit are refused."""
    with client.open_stream(CONFIG, picture()) as usual, \
            client.open_stream(CONFIG, picture(), extras=pack_extras(clip_features=torch.ones(1, 17, 32))) as other:
        for stream in (usual, other):
            stream.push_audio(speech(1), final=True)
        assert sha(read(usual)[0]) != sha(read(other)[0])
    with pytest.raises(ConfigError, match=r"needs \[1, rows, 16\]"):
        client.open_stream(CONFIG, picture(), extras=pack_extras(context=torch.ones(1, 2, 3)))


def _check_latents(client: Client, model: Path) -> None:
    """Latents of two videos, exact and in tiles, as one rank decodes them."""
    latents = torch.randn(2, 16, 3, 4, 6, generator=torch.Generator().manual_seed(9))
    vae = load_model(model, "cpu", "fp32").vae
    with torch.no_grad():
        whole = to_uint8(vae.decode(latents)).permute(0, 2, 3, 4, 1).flatten(0, 1).numpy()
    descriptor = os.memfd_create("latents", os.MFD_ALLOW_SEALING)
    os.write(descriptor, latents.numpy().tobytes())
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    for tiled in (False, True):
        with client.decode_latents(
            descriptor, (2, 16, 3, 4, 6), frames=4, height=32, width=48, tiled=tiled
        ) as stream:
            pieces = list(stream.chunks(60))
        assert [(piece.first_frame, len(piece.frames)) for piece in pieces] == [
            (0, 1), (1, 4), (5, 4), (9, 1), (10, 4), (14, 4)
        ]  # fmt: skip
        identical, largest = off_by([piece.frames for piece in pieces], [whole])
        assert identical >= 0.999 and largest <= 1
    with pytest.raises(ConfigError, match="have 8 channels"):
        client.decode_latents(descriptor, (2, 8, 6, 4, 6), frames=4, height=32, width=48)
    os.close(descriptor)


@pytest.mark.parametrize("world", [2, 3, pytest.param(4, marks=pytest.mark.slow)])
def test_several_ranks_show_what_one_shows(tmp_path: Path, tiny_model_folder: Path, world: int) -> None:
    with running(real_config(tmp_path, tiny_model_folder, world=world)) as client:
        with client.open_stream(CONFIG, picture()) as stream:
            stream.push_audio(speech(3.5), final=True)
            shown = read(stream)
        # The ranks talk to each other over the loopback device and nothing else.
        assert addresses(client.welcome.pid) == {"127.0.0.1"}
        if world == 2:
            _check_features(client)
            _check_latents(client, tiny_model_folder)
        identical, largest = off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 3.5)])
        assert np.std(shown[-1]) > 5
        assert identical >= 0.999 and largest <= 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(find_compiler() is None, reason="compiling for the CPU needs a C++ compiler")
def test_compiled_ranks_show_what_plain_ones_show(tmp_path: Path, tiny_model_folder: Path) -> None:
    phases: set[str] = set()

    def note(event: Event) -> None:
        if isinstance(event, Progress):
            phases.add(event.phase)

    config = real_config(tmp_path, tiny_model_folder, compile=True, deadlines=Deadlines(first_chunk=10, compile=800))
    with running(config, note) as client, client.open_stream(CONFIG, picture()) as stream:
        stream.push_audio(speech(2.5), final=True)
        shown = read(stream, 850)
    assert "compiling" in phases, "the first chunk has the compiler's deadline, not that of a chunk"
    identical, largest = off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 2.5)])
    assert identical >= 0.99 and largest <= 1
