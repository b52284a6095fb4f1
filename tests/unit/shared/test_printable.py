"""Control characters of foreign text are escaped on a terminal; other text is unchanged."""

from __future__ import annotations

import io
import sys

import pytest
import structlog

from services.shared.printable import printable, printable_lines
from services.shared.telemetry import logs


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J", "\\x1b[2J"),
        ("\x9b2J", "\\x9b2J"),
        ("a\rb\x08", "a\\rb\\x08"),
        ("a\nb", "a\\nb"),
        ("gpj\u202e.exe", "gpj\\u202e.exe"),
        ("\udcff.jpg", "\\udcff.jpg"),
        ("Ångström 東京 👩\u200d🚀", "Ångström 東京 👩\u200d🚀"),
        ("a [/b]", "a [/b]"),
    ],
)
def test_control_characters_become_escapes(text: str, shown: str) -> None:
    """No control character, direction override or lone surrogate remains in the text."""
    assert printable(text) == shown


def test_line_ends_stay_on_request() -> None:
    """Line ends are kept, and control characters beside them are escaped."""
    assert printable_lines("a\n\x1bb") == "a\n\\x1bb"


@pytest.mark.parametrize("log_format", ["pretty", "json"])
def test_a_log_line_carries_no_escape_sequence_of_others(
    log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer's text in a message, a value, or an exception does not reach the terminal raw."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    before = structlog.get_config()
    try:
        logs.configure("info", log_format)
        try:
            raise ValueError("\x1b]0;error\x07")  # noqa: EM101, TRY301 (the test needs this text)
        except ValueError:
            structlog.get_logger("test").exception("\x1b]0;event\x07", value="\x9b2J\udcff")
    finally:
        structlog.configure(**before)
    written = out.getvalue()
    assert "\\x1b]0;error" in written.replace("\\\\", "\\")
    assert "\\x1b]0;event" in written.replace("\\\\", "\\")
    assert "\x1b]" not in written
    assert not {"\x07", "\x9b", "\udcff"} & set(written)
