"""Checks that code and docs use plain words, and begin sentences with their subject.

Run in the repository: `python -m tools.words`. Prints each place, and exits with 1 if there is any.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator
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
_BEGINNING: Final = re.compile(
    r"(?:\A|\n[ \t]*\n|[^.][.!?]\s)\s*(What|Who|Whether|It|Else|So)\s|\A(One)\s"
)
_END: Final = re.compile(r"[.!?](?=\s|\Z)|\n[ \t]*\n")
_QUOTED: Final = re.compile(r'`[^`]*`|"[^"]*"|“[^”]*”')
_NO_PROSE: Final = re.compile(r"[#|<]|```")
_ITEM: Final = re.compile(r"[-*] |\d+\. ")


def faults(path: str, text: str) -> Iterator[str]:
    """Yield a line for each banned word and each banned beginning of a sentence in a file."""
    for found in _WORD.finditer(text):
        word = " ".join(found[0].lower().split())
        yield f"{path}:{_line(text, found.start())}: {word!r} (write {_BANNED[word]})"
    prose = {".py": _python_prose, ".md": _markdown_prose}.get(Path(path).suffix)
    for line, part in () if prose is None else prose(text):
        for offset, word in _beginnings(part):
            if word == "One" and prose is _markdown_prose:
                continue  # a number, as in "One embedder is enough"
            where = line - 1 + _line(part, offset)
            yield f"{path}:{where}: {word!r} begins a sentence (begin with its subject)"


def _beginnings(prose: str) -> Iterator[tuple[int, str]]:
    """Yield offset and word of each banned beginning, except those of questions."""
    prose = _QUOTED.sub(lambda quoted: re.sub(r"\S", "x", quoted[0]), prose)
    for found in _BEGINNING.finditer(prose):
        end = _END.search(prose, found.end())
        if end is None or end[0] != "?":
            yield found.start(found.lastindex or 0), found[found.lastindex or 0]


def _python_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the docstrings and the blocks of comments of a module, each with its first line."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str() as docstring)):
                yield node.lineno, docstring
    yield from _blocks(
        (token.start[0], token.string.lstrip("# "))
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    )


def _markdown_prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield the paragraphs and the list items of a page, without code, tables and headings."""
    fenced = False
    lines: list[tuple[int, str]] = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        fenced ^= line.startswith("```")
        if _ITEM.match(line):
            yield from _blocks(lines)
            lines.clear()
        if line and not fenced and not _NO_PROSE.match(line):
            lines.append((number, _ITEM.sub("", line, count=1)))
    yield from _blocks(lines)


def _blocks(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Join lines that follow each other, as (number, text), to blocks with their first number."""
    block: list[str] = []
    begin = 0
    for number, line in lines:
        if block and number != begin + len(block):
            yield begin, "\n".join(block)
            block = []
        begin = begin if block else number
        block.append(line)
    if block:
        yield begin, "\n".join(block)


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


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
