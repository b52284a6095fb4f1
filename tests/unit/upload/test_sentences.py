"""The page's words for errors: each code that a person can meet has a sentence of its own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from services.upload import page_handlers
from tools.openapi import caller_errors

SENTENCES: Final = Path(page_handlers.__file__).parent / "pages" / "sentences.js"

FOR_PROGRAMS: Final = frozenset(
    {"expectation_failed", "head_too_large", "method_not_allowed", "unknown_route"}
)
"""Codes of requests that the page does not make; the page shows the server's own words."""


def test_every_error_has_words_for_a_person() -> None:
    """A new code needs a sentence, or is none that the page can cause."""
    text = SENTENCES.read_text(encoding="utf-8")
    written = set(re.findall(r"^  ([a-z_]+): \(", text, re.MULTILINE))
    codes = {error.code for error in caller_errors()}
    assert codes - written == FOR_PROGRAMS
