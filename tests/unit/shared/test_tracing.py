"""Contexts of traces: which are sound, and that nothing is made of them when tracing is off."""

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
def test_what_is_no_context_is_not_passed_on(traceparent: str) -> None:
    """W3C's version 00 alone, with ids that are some."""
    assert tracing.sound(SOUND)
    assert not tracing.sound(traceparent)


def test_a_context_says_whether_it_is_kept() -> None:
    """By the lowest bit of its flags; without a context nothing is."""
    flags = {"00": False, "01": True, "02": False, "03": True, "0b": True, "0c": False}
    for flag, kept in flags.items():
        assert tracing.sampled(f"{SOUND[:-2]}{flag}") is kept
    assert not tracing.sampled("")
    assert (tracing.trace_id(SOUND), tracing.trace_id("")) == (TRACE, "")


def test_off_makes_nothing() -> None:
    """No request becomes a trace, whatever comes with it, and no work a span."""
    off = tracing.tracing("off", "replica")
    tracer = off.tracer("upload")
    assert tracer.begin(SOUND, 0.0) is None
    assert tracer.record("embed", Stopwatch(0.0), SOUND, {}) == ""
    off.close()


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing that is on without its extra says what to install."""
    monkeypatch.setitem(sys.modules, "services.shared.telemetry.otel", None)
    with pytest.raises(MissingExtra, match=r"simile-search\[tracing\]"):
        tracing.tracing("otlp", "replica")
