"""Events carry no secrets, timers add up, percentiles are right."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from livetalk_core import telemetry

pytestmark = pytest.mark.unit


def test_an_event_reaches_listeners_and_the_log(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[telemetry.Event] = []
    with caplog.at_level(logging.INFO, logger="livetalk"), telemetry.listening(heard.append):
        telemetry.emit("stream_opened", width=64, model="tiny")
    telemetry.emit("not_heard")
    assert [(event.name, event.fields) for event in heard] == [
        ("stream_opened", {"width": 64, "model": "tiny"})
    ]
    assert 'stream_opened {"width": 64, "model": "tiny"}' in caplog.text


def test_secrets_and_home_folders_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    home = os.path.expanduser("~")
    with caplog.at_level(logging.INFO, logger="livetalk"):
        fields = {"hf_token": "tok-123", "Password": "pw-456"}
        telemetry.emit("x", file=Path(home) / "a.wav", text="é" * 5000, **fields)
    assert "tok-123" not in caplog.text and "pw-456" not in caplog.text
    assert str(Path(home) / "a.wav") not in caplog.text
    assert os.path.join("~", "a.wav") in caplog.text
    assert len(caplog.text) < 3000


def test_stages_add_up_and_count_failures() -> None:
    calls: list[int] = []
    timer = telemetry.StageTimer(lambda: calls.append(1))
    for _ in range(2):
        with timer.stage("decode"):
            pass
    with pytest.raises(ValueError), timer.stage("encode"):
        raise ValueError
    assert list(timer.seconds) == ["decode", "encode"]
    assert all(seconds >= 0 for seconds in timer.seconds.values())
    assert len(calls) == 6


def test_summary_of_timings() -> None:
    summary = telemetry.summarise([{"a": float(n), **({"b": 1.0} if n else {})} for n in range(101)])
    assert summary["a"] == {"count": 101, "mean": 50.0, "p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0}
    assert summary["b"]["count"] == 100


def test_percentile_interpolates_and_refuses_nothing() -> None:
    assert telemetry.percentile([3.0, 1.0], 50) == 2.0
    assert telemetry.percentile([7.0], 95) == 7.0
    with pytest.raises(ValueError, match="no values"):
        telemetry.percentile([], 50)
