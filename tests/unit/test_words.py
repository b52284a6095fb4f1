"""The check of words finds banned words and banned beginnings of sentences, and nothing else."""

from __future__ import annotations

import pytest

from tools import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Build it anew.", ["page.txt:1: 'anew' (write again)"]),
        ("a\nAnew, b", ["page.txt:2: 'anew' (write again)"]),
        ("work in\n  hand", ["page.txt:1: 'in hand' (write in flight, running)"]),
        ("simile_in_hand_images re-anew anewly building-told file.tell() def tell(", []),
    ],
)
def test_banned_words_are_found_with_their_line_and_a_replacement(
    text: str, found: list[str]
) -> None:
    """Whole words are found in either case; parts of names and calls are not."""
    assert list(words.faults("page.txt", text)) == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('"""What a module does."""', ["1: 'What'"]),
        ('def f():\n    """One of them."""', ["2: 'One'"]),
        (
            '"""Reads a file.\n\nIt ends with an error. So does\nthis. Who knows.\n"""',
            ["3: 'It'", "3: 'So'", "4: 'Who'"],
        ),
        (
            "# The first line,\n# of two. Whether\n# or not.\n\n# Else this.",
            ["2: 'Whether'", "5: 'Else'"],
        ),
        ('"""Reads one file. Is that all? What else is there?"""', []),
        ('"""Returns "What is" and `It is`, e.g. It. Sole, Items, Whose."""', []),
        ('"""Reads two.\n\n    path: One of them.\n"""', []),
        ('x = "What is not a docstring."', []),
    ],
)  # fmt: skip
def test_sentences_that_hide_their_subject_are_found_in_docstrings_and_comments(
    code: str, found: list[str]
) -> None:
    """Each sentence of a docstring and of a block of comments is checked, strings are not."""
    assert [fault.split(":", 1)[1].split(" begins")[0] for fault in words.faults("m.py", code)] == (
        found
    )


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ("# What it does\n\nIt searches. Fast.\nSo it is.", ["3: 'It'", "4: 'So'"]),
        ("- Simile is small.\n- What else.\n1. Who asks?", ["3: 'who asks'", "2: 'What'"]),
        ("| It | So |\n|---|---|\n\n```\nIt is code.\n```\n<!-- It is hidden. -->", []),
        ("What does it cost? Nothing.\n\nOne embedder is enough.", []),
    ],
)
def test_pages_are_checked_in_their_paragraphs_and_lists(page: str, found: list[str]) -> None:
    """Headings, tables, code and questions are free; list items are sentences of their own."""
    faults = [fault.split(":", 1)[1].split(" begins")[0] for fault in words.faults("p.md", page)]
    assert [fault.split(" (")[0] for fault in faults] == found
