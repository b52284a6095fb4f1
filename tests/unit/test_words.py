"""The check for banned words finds them in prose, across line ends, and nowhere else."""

from __future__ import annotations

import pytest

from tools import words

# Written apart, so that the check does not find this file's own examples.
ANEW = "an" + "ew"
IN_HAND = "in" + " " + "hand"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"Build it {ANEW}.", ["page.md:1: 'ANEW' (write again)"]),
        (f"a\n{ANEW.title()}, b", ["page.md:2: 'ANEW' (write again)"]),
        (IN_HAND.replace(" ", "\n  "), ["page.md:1: 'IN_HAND' (write in flight, running)"]),
        (f"simile_{IN_HAND.replace(' ', '_')}_images re-{ANEW} {ANEW}ly", []),
    ],
)
def test_banned_words_are_found_with_their_line_and_a_replacement(
    text: str, found: list[str]
) -> None:
    """Whole words are found in either case; parts of names are not."""
    expected = [line.replace("IN_HAND", IN_HAND).replace("ANEW", ANEW) for line in found]
    assert list(words.faults("page.md", text)) == expected
