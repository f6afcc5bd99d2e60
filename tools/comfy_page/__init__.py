"""Workflows in the page's own format, and the pictures of them, made by a real ComfyUI in a real browser."""

from __future__ import annotations

from ..comfy_host import ROOT

__all__ = ["ROOT"]
