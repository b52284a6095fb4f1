"""The page of benchmarks: prose is wrapped, tables and lists stay as they are."""

from __future__ import annotations

from tests.benchmarks.results import wrapped

_WORDS = "word " * 30


def test_only_prose_is_wrapped() -> None:
    """A paragraph in several lines becomes lines of at most 100 characters."""
    kept = f"## Title\n\n| {_WORDS}|\n- {_WORDS}\n![{_WORDS}](image.png)"
    lines = wrapped(f"{kept}\n\n{_WORDS}\n{_WORDS}").splitlines()
    assert "\n".join(lines[:5]) == kept
    assert max(map(len, lines[6:])) <= 100
    assert " ".join(lines[6:]).split() == (_WORDS * 2).split()
