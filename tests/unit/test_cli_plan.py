"""`livetalk plan`: table, JSON and refusals."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from livetalk_core.cli import app

pytestmark = pytest.mark.unit


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    return result.exit_code, result.output


def test_table_names_degrees_tiles_and_the_prediction() -> None:
    code, text = _run("--world", "6", "--gpu", "H800")
    assert code == 0
    for part in ("12,096 tokens", "ulysses 2 x ring 3", "VAE tiles 3x2", "10080..12096", "468 TFLOP", "0.434 s"):
        assert part in text


def test_json_has_every_rank_and_no_padding_in_front() -> None:
    code, text = _run("--world", "8", "--size", "416x720", "--json", "--dtype", "fp32", "--steps", "2")
    assert code == 0
    report = json.loads(text)
    assert report["tokens"] == 10_530
    assert [rank["padding"] for rank in report["ranks"]] == [0] * 7 + [6]
    assert report["flops"]["steps"] == 2
    assert report["prediction"] is None
    assert report["memory_per_rank"]["total"] > report["memory_per_rank"]["weights"]


def test_model_folder_is_planned_from_its_configurations(tiny_model_folder: object) -> None:
    code, text = _run("--world", "4", "--model", str(tiny_model_folder), "--json")
    assert code == 0
    report = json.loads(text)
    assert (report["model"], report["ulysses"], report["ring"]) == ("tiny-0", 2, 2)
    assert report["memory_per_rank"]["weights"] < 100e6


def test_too_small_a_card_is_named() -> None:
    code, text = _run("--world", "4", "--gpu", "4090")
    assert code == 0
    assert "the RTX4090 has 24 GB" in " ".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--world", "3", "--ulysses", "2"), "ulysses 2 x ring 1 = 2, but there are 3 ranks"),
        (("--world", "2", "--size", "450x768"), "width is 450"),
        (("--world", "2", "--gpu", "Voodoo"), "No rates are known"),
        (("--world", "0"), "world is 0"),
        (("--world", "999999"), "12096 tokens / 999999 ranks"),
        (("--world", "2", "--steps", "0"), "steps is 0"),
        (("--world", "2", "--dtype", "fp8"), "--dtype is 'fp8'"),
        (("--world", "2", "--model", "nowhere"), "no model folder"),
    ],
)
def test_refusals_say_what_is_wrong(arguments: tuple[str, ...], part: str) -> None:
    code, text = _run(*arguments)
    assert code == 2
    assert part in " ".join(text.split())
    assert "Traceback" not in text
