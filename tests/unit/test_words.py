"""The check for banned words finds them in prose, across line ends, and nowhere else."""

from __future__ import annotations

import pytest

from tools import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Build it anew.", ["page.md:1: 'anew' (write again)"]),
        ("a\nAnew, b", ["page.md:2: 'anew' (write again)"]),
        ("work in\n  hand", ["page.md:1: 'in hand' (write in flight, running)"]),
        ("simile_in_hand_images re-anew anewly building-told", []),
    ],
)
def test_banned_words_are_found_with_their_line_and_a_replacement(
    text: str, found: list[str]
) -> None:
    """Whole words are found in either case; parts of names are not."""
    assert list(words.faults("page.md", text)) == found
