"""Reads manifest.csv, the list of a folder's images with their labels and attributes.

Spreadsheets write it in several ways: with commas, semicolons or tabs, in UTF-8 or UTF-16, with
`Path` or `PATH` as the column's name. Ambiguities are errors that name the remedy.
"""

from __future__ import annotations

import codecs
import csv
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, TextIO

from services.searcher.build.source.source_image import SourceImage
from services.shared.errors import BuildFailed, InvalidRow

LISTING: Final = "manifest.csv"

_PATH: Final = "path"
_LABEL: Final = "label"
_DELIMITERS: Final = (",", ";", "\t")
_SEPARATOR_HINT: Final = "sep="
"""Spreadsheets name their separator so in a line of its own before the header."""
_MAX_SHOWN: Final = 60
_UTF16_MARKS: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class _Header:
    """The names of the columns, which of them are path and label, and how the file is written.

    lines: how many the header takes. spaced: a space follows each delimiter.
    """

    names: Sequence[str]
    path: int
    label: int | None
    delimiter: str
    lines: int
    spaced: bool


def read_listing(listing: Path) -> Iterator[SourceImage]:
    """Yield the image of each row; a row that can't be used has a fault.

    Raises BuildFailed for a file that can't be used at all.
    """
    empty = True
    try:
        with listing.open(newline="", encoding=_encoding(listing)) as lines:
            for image in _rows(listing, lines):
                empty = False
                yield image
    except UnicodeError as error:
        message = (
            f"{listing} is not UTF-8 ({_first_undecodable(listing) or error}): save it as UTF-8, "
            "which spreadsheets call CSV UTF-8"
        )
        raise BuildFailed(message) from error
    except OSError as error:
        message = f"{listing} can't be read: {error.strerror or error}"
        raise BuildFailed(message) from error
    if empty:
        message = f"{listing} names no image: its first line names the columns, then a row an image"
        raise BuildFailed(message)


def _rows(listing: Path, lines: TextIO) -> Iterator[SourceImage]:
    first = 1
    try:
        header = _read_header(listing, lines)
        first += header.lines
        rows = csv.reader(
            lines, delimiter=header.delimiter, skipinitialspace=header.spaced, strict=True
        )
        for row in rows:
            if any(row):  # spreadsheets leave rows of nothing but separators
                yield _image(listing.parent, header, row, first)
            first = header.lines + rows.line_num + 1
    except csv.Error as error:
        message = (
            f"{listing} can't be read, at the row that begins in line {first}: {error}; "
            "is a quote missing?"
        )
        raise BuildFailed(message) from error


def _image(folder: Path, header: _Header, row: Sequence[str], line: int) -> SourceImage:
    cells = [*row, *[""] * (len(header.names) - len(row))]
    given = cells[header.path]
    if not given.strip():
        fault = (InvalidRow.code, "the row has no path")
        return SourceImage(f"{LISTING}, line {line}", "", {}, fault)
    path = _as_on_disk(folder, str(PurePosixPath(given)))
    if any(cells[len(header.names) :]):
        why = (
            f"line {line} has {len(row)} cells, the header {len(header.names)}: put a value that "
            f"holds {_named(header.delimiter)} into double quotes"
        )
        return SourceImage(path, "", {}, (InvalidRow.code, why))
    label = "" if header.label is None else cells[header.label]
    return SourceImage(path, label, _attributes(header, cells))


def _attributes(header: _Header, cells: Sequence[str]) -> Mapping[str, str]:
    return {
        name: cells[number]
        for number, name in enumerate(header.names)
        if name and number not in {header.path, header.label}
    }


def _read_header(listing: Path, lines: TextIO) -> _Header:
    """Return the header, by the first delimiter that gives a column path. Raises BuildFailed."""
    text, count = _first_line(lines)
    delimiters: Sequence[str] = _DELIMITERS
    if text.lower().startswith(_SEPARATOR_HINT):
        delimiters = text[len(_SEPARATOR_HINT) :].strip("\r\n")[:1] or _DELIMITERS
        text, more = _first_line(lines)
        count += more
    if not text:
        message = f"{listing} is empty: its first line names the columns, such as path,label"
        raise BuildFailed(message)
    for delimiter in delimiters:
        cells = next(csv.reader([text], delimiter=delimiter), [])
        names = [cell.strip() for cell in cells]
        path = _column(listing, names, _PATH)
        if path is not None:
            _require_distinct(listing, names)
            label = _column(listing, names, _LABEL)
            spaced = any(cell.startswith(" ") for cell in cells[1:])
            return _Header(names, path, label, delimiter, count, spaced)
    raise _no_path(listing, text)


def _first_line(lines: TextIO) -> tuple[str, int]:
    """Return the first line that is not blank, or nothing, and the number of lines read."""
    count = 0
    while line := lines.readline():
        count += 1
        if line.strip():
            return line, count
    return "", count


def _column(listing: Path, names: Sequence[str], wanted: str) -> int | None:
    """Return the column of that name, ignoring case if none matches exactly. Raises BuildFailed."""
    if wanted in names:
        return names.index(wanted)
    alike = [number for number, name in enumerate(names) if name.casefold() == wanted]
    if len(alike) > 1:
        given = _quoted(names[number] for number in alike)
        message = f"{listing} has several columns for {wanted}: {given}; keep one of them"
        raise BuildFailed(message)
    return alike[0] if alike else None


def _require_distinct(listing: Path, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(filter(None, names)).items() if count > 1]
    if repeated:
        message = f"{listing} has a column twice: {_quoted(repeated)}; rename or remove one"
        raise BuildFailed(message)


def _no_path(listing: Path, header: str) -> BuildFailed:
    if "\0" in header:
        return BuildFailed(f"{listing} is not UTF-8, as its NUL bytes show: save it as UTF-8")
    names = [name.strip() for name in next(csv.reader([header]), [])]
    seen = _quoted(names[:10])
    return BuildFailed(
        f"{listing} has no column 'path': its first line names {seen}. Name the columns there: "
        "path, then label and others where you have them, and separate them by commas"
    )


def _encoding(listing: Path) -> str:
    with listing.open("rb") as raw:
        head = raw.read(2)
    return "utf-16" if head in _UTF16_MARKS else "utf-8-sig"


def _first_undecodable(listing: Path) -> str | None:
    """Describe the place of the first bytes that are not UTF-8."""
    with listing.open("rb") as raw:
        for number, line in enumerate(raw, start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                shown = line[:_MAX_SHOWN].decode(errors="backslashreplace").strip()
                return f"line {number}: {shown}"
    return None


def _as_on_disk(folder: Path, path: str) -> str:
    """Return the path as it is on the disk: with slashes, or with composed accents.

    Windows writes backslashes; macOS writes an accent as a character of its own.
    """
    if path.isascii() and "\\" not in path:
        return path
    slashes = path.replace("\\", "/")
    composed = (unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))
    for candidate in (path, slashes, *composed):
        if os.path.exists(folder / candidate):  # noqa: PTH110 (Path.exists raises for long names)
            return str(PurePosixPath(candidate))
    return path


def _named(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab"}.get(delimiter, repr(delimiter))


def _quoted(names: Sequence[str] | Iterator[str]) -> str:
    return ", ".join(repr(name[:_MAX_SHOWN]) for name in names)
