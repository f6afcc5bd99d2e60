"""One rank of a test world: python rank_main.py SUITE WORLD FOLDER RANK."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import torch

from livetalk_core.parallel.groups import open_groups


def main() -> None:
    suite, world, folder, rank = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    cases = importlib.import_module(suite).cases(world)
    with open_groups(rank, world, folder / "rendezvous", timeout=60) as groups:
        results = {name: case(groups) for name, case in cases.items()}
    (folder / f"rank{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
