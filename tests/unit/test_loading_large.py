"""A synthetic published folder of several hundred megabytes: converted, loaded, measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_model import LARGE, write_published_model

from livetalk_core.loading import load_model
from livetalk_core.loading.convert import convert

pytestmark = [pytest.mark.unit, pytest.mark.slow, pytest.mark.timeout(1200)]

MEASURE = """
import json, sys, time
from livetalk_core.loading import load_model
load_model("random:tiny", "cpu", "fp32")  # libraries imported, allocator warm
def memory(key):
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith(key))
open("/proc/self/clear_refs", "w").write("5")  # reset the peak
before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
bundle = load_model(sys.argv[1], "cpu", sys.argv[2])
seconds, cpu, peak = time.perf_counter() - start, time.process_time() - cpu, memory("VmHWM")
modules = (bundle.transformer, bundle.vae, bundle.audio_encoder, bundle.image_encoder, bundle.text_encoder)
weights = sum(p.nbytes for m in modules for p in m.parameters())
print(json.dumps({"seconds": seconds, "cpu_seconds": cpu, "weights": weights, "extra": peak - before - weights}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "SoulX-Synthetic"
    modules = write_published_model(folder, LARGE)
    pickles = [*folder.glob("*.pth"), *folder.glob("*/*.bin")]
    assert len(pickles) == 4
    convert(folder, accept_unlisted=True)
    for pickle in pickles:
        pickle.unlink()
    bundle = load_model(folder, "cpu", "fp32")
    for name, saved in modules.items():
        loaded = bundle.vae.vae if name == "vae" else getattr(bundle, name)
        state = loaded.state_dict()
        for key, value in saved.state_dict().items():
            assert key == "masked_spec_embed" or torch.equal(state[key], value.float()), (name, key)
    return folder


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_extra_memory_while_loading_stays_below_one_shard(folder: Path, dtype: str) -> None:
    command = [sys.executable, "-c", MEASURE, str(folder), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    largest = max(path.stat().st_size for path in folder.rglob("*.safetensors"))
    total = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
    print(json.dumps({"dtype": dtype, **figures, "files": total, "largest_file": largest}))
    assert total > 500_000_000
    assert figures["extra"] <= largest
