"""Every text of the nodes in every language: nothing missing, nothing left over, nothing forgotten in English."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from nodes.phases import PHASES

pytestmark = pytest.mark.unit
ROOT = Path(__file__).resolve().parents[2]
SHAPES = json.loads((ROOT / "tests" / "golden" / "object_info.json").read_text(encoding="utf-8"))
"""Nodes with their inputs and outputs, as a host has told them (tests/comfy keeps this true)."""

LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())


def read(language: str, name: str) -> Any:
    return json.loads((ROOT / "locales" / language / name).read_text(encoding="utf-8"))


def paths(texts: Any, before: str = "") -> dict[str, str]:
    """Texts by the path to them."""
    if isinstance(texts, str):
        return {before: texts}
    return {path: text for name, part in texts.items() for path, text in paths(part, f"{before}/{name}").items()}


def test_there_are_these_languages() -> None:
    assert LANGUAGES == ["en", "zh"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_input_and_output_has_name_and_tooltip(language: str) -> None:
    wanted = set()
    for node, shape in SHAPES.items():
        wanted |= {f"/{node}/display_name", f"/{node}/description"}
        inputs = [f"inputs/{name}" for kind in ("required", "optional") for name, *_ in shape[kind]]
        outputs = [f"outputs/{index}" for index in range(len(shape["outputs"]))]
        wanted |= {f"/{node}/{place}/{text}" for place in (*inputs, *outputs) for text in ("name", "tooltip")}
    texts = paths(read(language, "nodeDefs.json"))
    assert texts.keys() == wanted and all(text.strip() for text in texts.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_player_and_the_phases_have_their_texts(language: str) -> None:
    texts = paths(read(language, "main.json")["livetalk"])
    said = set()
    for script in (ROOT / "web" / "js").glob("*.js"):
        said |= set(re.findall(r'"(player\.\w+)"', script.read_text(encoding="utf-8")))
    said |= {f"player.{why}" for why in ("stopped", "failed")}  # Player.halt puts them together
    assert texts.keys() == {f"/{name.replace('.', '/')}" for name in said} | {f"/phase/{name}" for name in PHASES}
    assert all(text.strip() for text in texts.values())


def test_english_says_what_the_server_says() -> None:
    assert read("en", "main.json")["livetalk"]["phase"] == PHASES


def test_translations_keep_the_places_for_numbers_and_are_translated() -> None:
    english = paths(read("en", "main.json"))
    for language in LANGUAGES:
        texts = paths(read(language, "main.json"))
        for path, text in english.items():
            assert set(re.findall(r"\{\w+\}", texts[path])) == set(re.findall(r"\{\w+\}", text)), path
            assert language == "en" or texts[path] != text, path


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_node_has_a_help_page_that_names_its_inputs(language: str) -> None:
    names = read(language, "nodeDefs.json")
    for node, shape in SHAPES.items():
        file = ROOT / "web" / "docs" / (f"{node}.md" if language == "en" else f"{node}/{language}.md")
        text = file.read_text(encoding="utf-8")
        assert text.startswith(f"# {names[node]['display_name']}\n")
        explained = {name for row in re.findall(r"^\| ([^|]+) \|", text, re.M) for name in re.split("[,、] ?", row)}
        for kind in ("required", "optional"):
            for name, *_ in shape[kind]:
                shown = name if language == "en" else names[node]["inputs"][name]["name"]
                assert shown in explained, (node, name)
