"""Memory that a chunk frees is there for the next one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted on Linux"),
]

# In a process of its own: the setting is for all of it, and stays.
PROGRAM = """
import json, resource, types
import torch
from livetalk_core.engine import Engine
from livetalk_core.engine.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [torch.ones(2 * 2**20) for _ in range(16)]
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [faults() for _ in range(3)][-1]
Engine(types.SimpleNamespace(device=torch.device("cpu")))
kept = [faults() for _ in range(3)][-1]
print(json.dumps({"usual": usual, "kept": kept, "able": keep_freed_memory()}))
"""


def test_an_engine_on_the_cpu_gives_no_memory_back_between_chunks() -> None:
    output = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    seen = json.loads(output)
    if not seen["able"]:
        pytest.skip("this C library cannot be told to keep freed memory")
    assert seen["usual"] > 1000, "otherwise the setting is superfluous here"
    assert seen["kept"] < 50
