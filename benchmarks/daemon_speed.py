"""What the daemon costs: hand-over of frames, overhead per chunk, start, first frame, import of the client.

    python benchmarks/daemon_speed.py                          # everything, JSON on standard output
    python benchmarks/daemon_speed.py --case handover --repeats 50

Every figure stands beside what it is compared with, measured in turn within the same run. All daemons live in a
temporary folder and are gone afterwards.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from livetalk_core.config import ChunkGeometry, StreamConfig
from livetalk_core.daemon.client import Client, DaemonConfig
from livetalk_core.loading.describe import describe_model
from livetalk_core.production.request import BUNDLED_PORTRAIT

GEOMETRY = ChunkGeometry()
SLICE = GEOMETRY.slice_samples
PORTRAIT = BUNDLED_PORTRAIT.read_bytes()


def _speech(chunks: int) -> Any:
    return (np.random.default_rng(0).standard_normal(chunks * SLICE) * 0.1).astype(np.float32)


def _embedded() -> StreamConfig:
    return describe_model(None).defaults.stream()


def _daemon(folder: str, world: int) -> DaemonConfig:
    return DaemonConfig(
        world_size=world, device="cpu", dtype="fp32", options={"threads": "1"}, runtime_root=folder, grace=0.2
    )


def _middle(values: list[float]) -> float:
    return statistics.median(values)


def handover(repeats: int) -> dict[str, Any]:
    """28 frames of 768x448 from rank 0 to the client, beside a bare copy of the same bytes."""
    config = StreamConfig(width=448, height=768)
    source = np.random.default_rng(0).integers(0, 256, (28, 768, 448, 3), dtype=np.uint8)
    target = np.zeros_like(source)
    whole, written, bare = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        daemon = DaemonConfig(
            worker="handover_rank", worker_path=(str(Path(__file__).parent),), runtime_root=folder, grace=0.2
        )
        with Client.start_or_join(daemon) as client, client.open_stream(config, b"") as stream:
            for _ in range(repeats):
                stream.push_audio(_speech(1))
                chunk = stream.next_chunk(60)
                done = time.monotonic()
                assert chunk is not None and np.array_equal(chunk.frames[-1], source[-1])
                whole.append(done - chunk.timings["began"])
                written.append(chunk.timings["written"] - chunk.timings["began"])
                began = time.monotonic()
                np.copyto(target, source)
                bare.append(time.monotonic() - began)
                del chunk
    return {
        "bytes": source.nbytes, "repeats": repeats, "handover_ms": 1e3 * _middle(whole),
        "written_ms": 1e3 * _middle(written), "bare_copy_ms": 1e3 * _middle(bare),
        "ratio": _middle([a / b for a, b in zip(whole, bare, strict=True)]), "best_handover_ms": 1e3 * min(whole),
        "best_bare_copy_ms": 1e3 * min(bare),
    }  # fmt: skip


def overhead(repeats: int) -> dict[str, Any]:
    """Time between chunks that the engine does not account for, per chunk of the embedded model, one rank."""
    extra, compute = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Client.start_or_join(_daemon(folder, 1)) as client,
        client.open_stream(_embedded(), PORTRAIT) as stream,
    ):
        stream.push_audio(_speech(repeats + 2), timeout=600)
        stream.next_chunk(600)
        stream.next_chunk(600)
        last = time.monotonic()
        for _ in range(repeats):
            chunk = stream.next_chunk(600)
            assert chunk is not None
            now = time.monotonic()
            compute.append(sum(chunk.timings.values()))
            extra.append(now - last - compute[-1])
            last = now
    shares = [a / b for a, b in zip(extra, compute, strict=True)]
    return {"repeats": repeats, "compute_s": _middle(compute), "overhead_ms": 1e3 * _middle(extra),
            "overhead_share": _middle(shares)}  # fmt: skip


def start(repeats: int) -> dict[str, Any]:
    """Two ranks of the embedded model: until the daemon is ready; a stream's first frame beside a steady chunk."""
    ready, new, known, steady = [], [], [], []
    for turn in range(max(1, repeats // 5)):
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            with Client.start_or_join(_daemon(folder, 2)) as client:
                client.load_model()
                ready.append(time.monotonic() - began)
                _first_and_steady(client, PORTRAIT, [], [])  # warms up
                for number in range(3):
                    picture = _other_portrait(3 * turn + number)
                    _first_and_steady(client, picture, new, steady)
                    _first_and_steady(client, picture, known, steady)
    chunk = _middle(steady)
    return {"ready_s": _middle(ready), "steady_chunk_s": chunk, "new_picture_s": _middle(new),
            "known_picture_s": _middle(known), "new_ratio": _middle(new) / chunk,
            "known_ratio": _middle(known) / chunk}  # fmt: skip


def _other_portrait(number: int) -> bytes:
    """The picture, a little brighter each time: one that no rank has seen."""
    out = io.BytesIO()
    ImageEnhance.Brightness(Image.open(BUNDLED_PORTRAIT).convert("RGB")).enhance(1.02 + number / 50).save(out, "PNG")
    return out.getvalue()


def _first_and_steady(client: Client, picture: bytes, first: list[float], steady: list[float]) -> None:
    began = time.monotonic()
    with client.open_stream(_embedded(), picture) as stream:
        stream.push_audio(_speech(4), timeout=600)
        for number in range(4):
            stream.next_chunk(600)
            now = time.monotonic()
            (steady if number else first).append(now - began)
            began = now


def client_import(repeats: int) -> dict[str, Any]:
    """Processor time of importing the client, and whether torch came along."""
    code = (
        "import time, sys; began = time.process_time(); import livetalk_core.daemon.client;"
        "print(time.process_time() - began, 'torch' in sys.modules)"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code], text=True).split() for _ in range(repeats)]
    return {"seconds": _middle([float(seconds) for seconds, _ in runs]), "best_s": min(float(s) for s, _ in runs),
            "torch": any(torch == "True" for _, torch in runs)}  # fmt: skip


CASES: dict[str, Callable[[int], dict[str, Any]]] = {
    "handover": handover, "overhead": overhead, "start": start, "import": client_import
}  # fmt: skip


def main() -> None:
    """Entry of the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=CASES, action="append", help="only this; may be repeated")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    results = {}
    for name in arguments.case or CASES:
        results[name] = CASES[name](arguments.repeats)
        print(json.dumps({name: results[name]}), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
