"""Defines the names of collections: parts of paths and URLs, in the letters of every script."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_LENGTH: Final = 63
"""In characters. A file name holds 255 bytes, and a character takes 4 at most."""

RULE: Final = f"use letters (not capitals), digits, - and _, at most {MAX_LENGTH}"
_MARKS: Final = "-_"


def is_name(text: str) -> bool:
    """Return whether a collection can have that name.

    A name is in lower case and in Unicode's composed form, so that no two names look alike where a
    file system or a keyboard writes the other form.
    """
    return (
        0 < len(text) <= MAX_LENGTH
        and text == _normal(text)
        and text[0] not in _MARKS
        and not _is_mark(text[0])
        and all(one in _MARKS or one.isalnum() or _is_mark(one) for one in text)
    )


def name_of(text: str) -> str:
    """Make a name of a text: in lower case, with `-` for other characters; may be empty."""
    kept = "".join(
        one if one in _MARKS or one.isalnum() or _is_mark(one) else "-" for one in _normal(text)
    )
    joined = re.sub("-+", "-", kept)
    start = next((at for at, one in enumerate(joined) if one.isalnum()), len(joined))
    return joined[start:][:MAX_LENGTH].rstrip(_MARKS)


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _is_mark(character: str) -> bool:
    """Return whether it is an accent or a vowel sign of the character before it."""
    return unicodedata.category(character).startswith("M")
