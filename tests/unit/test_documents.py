"""What the documents point at is there, and the reader's index knows every module of the core."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "livetalk_core"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md"),
                    *(ROOT / "web" / "docs").rglob("*.md"), *(ROOT / "tests").rglob("README.md")])  # fmt: skip
INDEX = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    places = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    for place in (a or b for a, b in places):
        if "://" in place or place.startswith("mailto:"):
            continue
        path, _, anchor = place.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), place
        if anchor:
            assert anchor in _anchors(target), place


def test_the_index_names_only_what_is_there() -> None:
    for name in set(re.findall(r"`([\w/]+\.(?:py|js|json))`", INDEX)):
        rooms = ("livetalk_core", "nodes", "web", "tools", "tests")
        assert (ROOT / name).exists() or any(list((ROOT / room).glob(f"**/{name}")) for room in rooms), name


def test_the_index_knows_every_module() -> None:
    named = set(re.findall(r"`([\w/]+(?:\.py|/))`", INDEX))
    for module in CORE.rglob("*.py"):
        place = module.relative_to(CORE)
        if place.name.startswith("__"):
            continue
        rooms = {f"{room.as_posix()}/" for room in place.parents if room != Path()}
        assert named & {place.as_posix(), *rooms}, f"{place} is not in the reader's index"


def _anchors(document: Path) -> set[str]:
    """Anchors of the headings, as they are made where Markdown is shown."""
    headings = re.findall(r"^#+ +(.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
