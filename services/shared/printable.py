"""Makes foreign text safe for a terminal: control characters are shown instead of obeyed."""

from __future__ import annotations

import re
from typing import Final

# C0 and C1 controls, line and paragraph separators, marks that turn the direction of writing, and
# lone surrogates, which no UTF-8 stream can write.
_CONTROL: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return the text with every control character as its escape, such as `\x1b`.

    Line ends count as control characters here: the result is one line.
    """
    # `isprintable` alone would be too strict: it refuses the joiners inside of emoji.
    return text if text.isprintable() else _CONTROL.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Return the text as `printable` does, with its line ends kept."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()
