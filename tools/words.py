"""Checks that code and docs use plain words.

Run in the repository: `python -m tools.words`. Prints each place, and exits with 1 if there is any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_BANNED: Final = {
    "tell": "show, report, say",
    "tells": "shows, reports, says",
    "told": "shown, reported, said",
    "at hand": "present, available",
    "in hand": "in flight, running",
    "set aside": "quarantined, kept",
    "mend": "repair, fix",
    "mended": "repaired, fixed",
    "anew": "again",
    "surely": "certainly, or leave it out",
    "thick": "often, many",
    "culprit": "the image that crashed",
    "who asks": "the caller",
    "what is none": "what is not one",
}
"""The banned words, each with a replacement."""

_SUFFIXES: Final = frozenset(
    [
        ".py",
        ".md",
        ".js",
        ".css",
        ".html",
        ".json",
        ".yaml",
        ".yml",
        ".tpl",
        ".txt",
        ".proto",
        ".sh",
    ]
)
_SKIPPED: Final = frozenset(
    {"CHANGELOG.md", "constraints.txt", "tools/words.py", "tests/unit/test_words.py"}
)
_WORD: Final = re.compile(
    r"(?<![\w-])(" + "|".join(_BANNED).replace(" ", r"\s+") + r")(?![\w(-])", re.IGNORECASE
)
"""A function may have such a name: a file has `tell()`."""


def faults(path: str, text: str) -> Iterator[str]:
    """Yield a line for each banned word of a file."""
    for found in _WORD.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        word = " ".join(found[0].lower().split())
        yield f"{path}:{line}: {word!r} (write {_BANNED[word]})"


def main() -> int:
    """Check every tracked file."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True)  # noqa: S607 (from PATH)
    found = [
        fault
        for name in listed.stdout.splitlines()
        if Path(name).suffix in _SUFFIXES and name not in _SKIPPED and "_pb2" not in name
        for fault in faults(name, Path(name).read_text(encoding="utf-8"))
    ]
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
