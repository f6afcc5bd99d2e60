"""Leaving a world: nothing of it lives on in the process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fakes.daemons import program

pytestmark = [
    pytest.mark.dist,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the names of threads"),
]

RANK = """
from pathlib import Path
from livetalk_core.parallel.groups import open_groups

with open_groups({rank}, 2, Path({rendezvous!r}), timeout=60) as groups:
    import diffusers.models.autoencoders.autoencoder_kl_wan
    groups.barrier()
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
print(sum("gloo" in name for name in names))
"""


def test_no_thread_of_a_world_outlives_it_whatever_was_imported_meanwhile(tmp_path: Path) -> None:
    """A thread that still lets go of tensors while the interpreter ends aborts the process."""
    codes = [RANK.format(rank=rank, rendezvous=str(tmp_path / "rendezvous")) for rank in range(2)]
    ranks = [program(code) for code in codes]
    for rank in ranks:
        out, _ = rank.communicate(timeout=90)
        assert rank.returncode == 0 and out.split()[-1] == "0"
