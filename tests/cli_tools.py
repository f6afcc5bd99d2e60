"""Run the command line in this process, and inputs for it."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import wave
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fakes.daemons import wait_until
from typer.testing import CliRunner

from livetalk_core.cli import app
from livetalk_core.daemon.process_group import module_environment

RATE = 16_000


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed, line breaks of the terminal undone."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def livetalk(*arguments: object, stdin: bytes | None = None) -> Outcome:
    """`livetalk ARGUMENTS`."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Outcome(result.exit_code, result.stdout, " ".join(result.stderr.split()))


def interrupted(samples: np.ndarray, state: Path, *arguments: object) -> tuple[int, str]:
    """`livetalk generate ARGUMENTS` of a pipe that stays open, Ctrl-C once it has a state: exit code, messages."""
    command = [sys.executable, "-m", "livetalk_core.cli", "generate", "--audio", "-", "--state", state, *arguments]
    with subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        # Sums depend on the number of threads: the child gets as many as the test that it is compared in has.
        env={**module_environment(), "OMP_NUM_THREADS": str(torch.get_num_threads())},
        # Whoever runs the tests in the background hands down an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(samples.astype("<i2").tobytes())
        process.stdin.flush()
        wait_until(lambda: state.exists() or process.poll() is not None, 300, "a chunk is written")
        process.send_signal(signal.SIGINT)
        # The pipe stays open until the process has gone: its end would finish the film in good order.
        process.wait(timeout=200)
        _, errors = process.communicate(timeout=200)
    return process.returncode, errors.decode()


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Something like speech, int16 [S]: syllables of a changing tone with noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * (140 + 40 * np.sin(3 * t)) * t) * np.abs(np.sin(2 * np.pi * 2.3 * t))
    return ((0.5 * tone + 0.05 * rng.standard_normal(len(t))) * 12_000).astype(np.int16)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def write_float_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """32-bit float WAV, which can hold NaN."""
    data = samples.astype("<f4").tobytes()
    header = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, rate, rate * 4, 4, 32)
    body = b"WAVE" + header + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)
    return path


def write_png_header(path: Path, width: int, height: int) -> Path:
    """A PNG that states a size and holds next to nothing."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + block(b"IHDR", size) + block(b"IDAT", zlib.compress(b"\0" * 64)))
    return path
