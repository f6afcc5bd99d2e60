"""Real ranks behind a daemon show what one engine in this process shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fakes.daemons import running
from fakes.real import CONFIG, SLICE, WHOLE, expected, off_by, picture, read, real_config, sha, speech

from livetalk_core.errors import ConfigError, ImageError, StateError

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


@pytest.mark.parametrize("world", [2, 3, 4])
def test_several_ranks_show_what_one_shows(tmp_path: Path, tiny_model_folder: Path, world: int) -> None:
    with running(real_config(tmp_path, tiny_model_folder, world=world)) as client:
        with client.open_stream(CONFIG, picture()) as stream:
            stream.push_audio(speech(3.5), final=True)
            shown = read(stream)
        identical, largest = off_by(shown, [chunk.frames for chunk in expected(tiny_model_folder, 3.5)])
        assert np.std(shown[-1]) > 5
        assert identical >= 0.999 and largest <= 1
