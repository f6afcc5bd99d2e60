"""Memory that a chunk frees is there for the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from livetalk_core.engine import Engine, heap, stream

pytestmark = pytest.mark.unit

# In a process of its own, because the setting is for all of it and stays; the one module, because the packages above
# it would import the model libraries.
PROGRAM = """
import json, resource, runpy, sys

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    pieces = [bytearray(b"x") * 2**23 for _ in range(16)]
    del pieces
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = [faults() for _ in range(3)][-1]
able = runpy.run_path(sys.argv[1])["keep_freed_memory"]()
print(json.dumps({"usual": usual, "able": able, "kept": [faults() for _ in range(3)][-1]}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="page faults are counted on Linux")
def test_freed_memory_is_used_again() -> None:
    command = [sys.executable, "-c", PROGRAM, heap.__file__]
    seen = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    if not seen["able"]:
        pytest.skip("this C library cannot be told to keep freed memory")
    assert seen["usual"] > 1000, "otherwise the setting is superfluous here"
    assert seen["kept"] < 50


@pytest.mark.parametrize(("device", "calls"), [("cpu", 1), ("cuda", 0)])
def test_engines_on_the_cpu_ask_for_it(device: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(stream, "keep_freed_memory", lambda: asked.append(None))
    Engine(SimpleNamespace(device=torch.device(device)))  # type: ignore[arg-type]
    assert len(asked) == calls
