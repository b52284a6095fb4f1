"""Contexts of traces are validated, and ignored when tracing is off."""

from __future__ import annotations

import sys

import pytest

from services.shared.errors import MissingExtra
from services.shared.telemetry import tracing
from services.shared.telemetry.stopwatch import Stopwatch

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SOUND = f"00-{TRACE}-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        SOUND[:-1],
        SOUND.upper(),
        f"ff{SOUND[2:]}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"{SOUND}\n",
        "-" * len(SOUND),
    ],
)
def test_an_invalid_context_is_not_passed_on(traceparent: str) -> None:
    """Only W3C's version 00 with ids other than zero is valid."""
    assert tracing.sound(SOUND)
    assert not tracing.sound(traceparent)


def test_a_context_says_whether_it_is_sampled() -> None:
    """The lowest bit of the flags decides; no context counts as not sampled."""
    flags = {"00": False, "01": True, "02": False, "03": True, "0b": True, "0c": False}
    for flag, kept in flags.items():
        assert tracing.sampled(f"{SOUND[:-2]}{flag}") is kept
    assert not tracing.sampled("")
    assert (tracing.trace_id(SOUND), tracing.trace_id("")) == (TRACE, "")


def test_tracing_that_is_off_creates_no_spans() -> None:
    """No request becomes a trace, whatever context it has, and no work becomes a span."""
    off = tracing.tracing("off", "replica")
    tracer = off.tracer("upload")
    assert tracer.begin(SOUND, 0.0) is None
    assert tracer.record("embed", Stopwatch(0.0), SOUND, {}) == ""
    off.close()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra to install."""
    monkeypatch.setitem(sys.modules, "services.shared.telemetry.otel", None)
    with pytest.raises(MissingExtra, match=r"simile-search\[tracing\]"):
        tracing.tracing("otlp", "replica")
