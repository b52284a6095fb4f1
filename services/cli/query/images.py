"""Finds the images that `simile query` sends: files, folders, URLs, standard input."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from services.cli.query.parameters import is_utf8
from services.clients.api import MAX_FILE_BYTES, QueryImage
from services.shared.errors import FileUnusable
from services.shared.image_files import image_files
from services.shared.json_text import read_json

STANDARD_INPUT: Final = "-"
_SCHEMES: Final = ("http://", "https://")
_MAX_VECTOR_BYTES: Final = 4 * 2**20
"""The bytes of a vector's JSON at most."""


def require_sources(
    context: click.Context, argument: click.Parameter, sources: Sequence[str]
) -> Sequence[str]:
    """Return the sources: files, folders, URLs, or -. Raises BadParameter for any other."""
    for source in sources:
        complaint = _complaint(source)
        if complaint is not None:
            message = f"{source!r} {complaint}"
            raise click.BadParameter(message, context, argument)
    if sources.count(STANDARD_INPUT) > 1:
        message = "- can be given once: standard input holds one image"
        raise click.BadParameter(message, context, argument)
    return sources


def _complaint(source: str) -> str | None:
    """Return the reason why a source can't be read; None for one that can."""
    if source == STANDARD_INPUT:
        return None
    if source.startswith(_SCHEMES):
        return None if is_utf8(source) else "is no URL: its text is not UTF-8"
    try:
        path = _path(source)
        if not path.exists():
            return "is no file, no folder, and no URL"
        usable = path.is_dir() or path.is_file() or path.is_fifo()
    except (OSError, RuntimeError) as error:
        return f"can't be used: {error}"
    # A device such as /dev/zero may never end.
    return None if usable else "is a device or a socket: give a file, a folder, a pipe, or a URL"


def is_single(sources: Sequence[str]) -> bool:
    """Return whether the sources are one image."""
    return len(sources) == 1 and not _path(sources[0]).is_dir()


def find_images(sources: Sequence[str]) -> Iterator[QueryImage]:
    """Yield the images of the sources in their order, those of a folder by name.

    Raises FileUnusable for a folder without images, or where standard input holds none.
    """
    for source in sources:
        if source == STANDARD_INPUT:
            yield QueryImage(name=source, content=_standard_input())
        elif source.startswith(_SCHEMES):
            yield QueryImage(name=source, url=source)
        elif _path(source).is_dir():
            yield from _of_folder(_path(source))
        else:
            yield QueryImage(name=source, path=_path(source))


def vector_query(file: Path) -> QueryImage:
    """Return the query by the vector in a JSON file, or in standard input. Raises FileUnusable."""
    if str(file) == STANDARD_INPUT:
        content = _standard_input(_MAX_VECTOR_BYTES)
    else:
        with file.open("rb") as opened:
            content = opened.read(_MAX_VECTOR_BYTES + 1)
    if len(content) > _MAX_VECTOR_BYTES:
        message = f"{file} has more than {_MAX_VECTOR_BYTES} bytes: it holds no vector"
        raise FileUnusable(message)
    try:
        vector = read_json(content)
    except ValueError:
        vector = None
    if not isinstance(vector, list) or not all(map(_is_number, vector)):
        message = f"{file} holds no JSON list of finite numbers"
        raise FileUnusable(message)
    return QueryImage(name=str(file), vector=vector)


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _path(source: str) -> Path:
    return Path(source).expanduser()


def _of_folder(folder: Path) -> Iterator[QueryImage]:
    found = False
    for file in image_files(folder):
        found = True
        yield QueryImage(name=str(file), path=file)
    if not found:
        message = f"{folder} holds no image: a folder is searched for JPEG, PNG, WebP, HEIC..."
        raise FileUnusable(message)


def _standard_input(max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the bytes of standard input, at most `max_bytes`. Raises FileUnusable."""
    if sys.stdin.isatty():
        message = "standard input is a terminal: pipe an image into it, as in `curl URL | ...`"
        raise FileUnusable(message)
    content = sys.stdin.buffer.read(max_bytes + 1)
    if not content or len(content) > max_bytes:
        message = "standard input has " + (
            f"more than {max_bytes} bytes, and no Simile takes as many"
            if content
            else "no bytes: - reads from it"
        )
        raise FileUnusable(message)
    return content
