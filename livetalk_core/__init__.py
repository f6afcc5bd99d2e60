"""LiveTalk: speech and one picture in, a person who speaks it out, chunk by chunk."""

from __future__ import annotations

__version__ = "0.1.0"
