"""`python -m livetalk_core.cli` is the `livetalk` command."""

from __future__ import annotations

from . import main

main()
