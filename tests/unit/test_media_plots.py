"""Loudness, lag and plots; files that appear whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from livetalk_core.errors import OutputError
from livetalk_core.media import (
    AtomicFile,
    best_lag,
    curves_plot,
    frame_loudness,
    loudness_envelope,
    mouth_plot,
    scale_loudness,
    write_atomic,
)

pytestmark = pytest.mark.unit


def speech_like(frames: int, seed: int = 0) -> np.ndarray:
    """A smooth random curve 0..1 [F]."""
    noise = np.random.default_rng(seed).normal(size=frames + 8)
    curve = np.convolve(noise, np.hanning(9) / 4, mode="valid")
    return np.clip(0.4 + 0.5 * curve, 0, 1).astype(np.float32)


def test_loudness_is_in_decibels_and_scaled_to_the_loudest_frame() -> None:
    samples = np.concatenate([np.full(640, 0.1), np.full(640, 0.01), np.zeros(640), np.full(300, 0.1)]).astype(
        np.float32
    )
    levels = frame_loudness(samples)
    assert levels == pytest.approx([-20, -40, -100, -20 + 10 * np.log10(300 / 640)], abs=0.01)
    assert loudness_envelope(samples) == pytest.approx([1, 25 / 45, 0, 1 - 3.29 / 45], abs=0.01)
    assert scale_loudness(frame_loudness(np.zeros(6400, np.float32))).max() == 0
    assert len(loudness_envelope(np.zeros(0, np.float32))) == 0


def test_levels_of_chunks_join_to_those_of_the_whole() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 17_920 * 3).astype(np.float32)
    parts = [frame_loudness(part) for part in np.split(samples, 3)]
    assert np.array_equal(np.concatenate(parts), frame_loudness(samples))


@pytest.mark.parametrize("shift", [-7, -1, 0, 2, 9])
def test_lag_is_found_with_its_sign(shift: int) -> None:
    curve = speech_like(120)
    leader = curve[20:100]
    follower = curve[20 - shift : 100 - shift]
    correlation, lag = best_lag(follower, leader)
    assert lag == shift
    assert correlation == pytest.approx(1.0, abs=1e-6)


def test_lag_of_constant_or_short_curves_is_zero() -> None:
    assert best_lag(np.zeros(50, np.float32), speech_like(50)) == (0.0, 0)
    assert best_lag(speech_like(2), speech_like(2)) == (0.0, 0)


@pytest.mark.parametrize("count", [3, 6, 12])
def test_curves_shorter_than_the_largest_lag_are_compared_as_far_as_they_go(count: int) -> None:
    curve = speech_like(120)[40 : 40 + count]
    correlation, lag = best_lag(curve, curve, max_lag=10)
    assert (correlation, lag) == (pytest.approx(1.0), 0)


@pytest.mark.parametrize("seconds", [0.04, 30.0])
def test_mouth_plot_returns_what_it_prints(tmp_path: Path, seconds: float) -> None:
    frames = round(seconds * 25)
    sound = speech_like(frames + 1)
    printed = mouth_plot(np.arange(frames) / 25, sound[:-1], sound[1:], tmp_path / "a.png", "Title")
    assert printed == best_lag(sound[:-1], sound[1:])
    if frames > 20:
        assert printed[1] == 1
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 20


def test_plots_of_equal_curves_are_equal_bytes(tmp_path: Path) -> None:
    x = np.arange(300)
    curves = {
        "train": (x, 1 / (1 + x / 30)),
        "held out": (x, np.where(x % 50 == 7, np.nan, 2 / (1 + x / 20))),
    }
    first = curves_plot(curves, tmp_path / "a.png", "Loss", y_label="loss", log_y=True, smooth=10)
    second = curves_plot(curves, tmp_path / "b.png", "Loss", y_label="loss", log_y=True, smooth=10)
    assert first.read_bytes() == second.read_bytes()
    plain = curves_plot(curves, tmp_path / "c.png", "Loss", y_label="loss", log_y=True)
    assert plain.read_bytes() != first.read_bytes()
    with pytest.raises(OutputError, match="does not exist"):
        curves_plot(curves, tmp_path / "none" / "a.png", "Loss")


def test_atomic_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert write_atomic(path, "größer").read_bytes() == "größer".encode()
    with pytest.raises(RuntimeError), AtomicFile(path) as file:
        file.temporary.write_bytes(b"half")
        assert path.read_bytes() == "größer".encode()
        raise RuntimeError
    assert path.read_bytes() == "größer".encode()
    file = AtomicFile(path)
    file.temporary.write_bytes(b"new")
    file.commit()
    file.commit()
    file.discard()
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.skipif(os.name != "posix", reason="links and modes")
def test_atomic_file_follows_links_and_umask(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "a.json")
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "link.json", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real" / "a.json").stat().st_mode & 0o777 == 0o640


def test_package_is_light_until_a_name_is_used() -> None:
    code = (
        "import sys, livetalk_core.media as media\n"
        "assert not {'av', 'PIL', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "from livetalk_core.media import ContactSheet, contact_sheet\n"
        "assert callable(contact_sheet) and 'av' not in sys.modules\n"
        "assert all(getattr(media, name) for name in media.__all__)\n"
        "assert not hasattr(media, 'nothing')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
