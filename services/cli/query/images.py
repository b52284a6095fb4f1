"""Finds the images that `simile query` sends: files, folders, URLs, standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from services.clients.api import QueryImage
from services.shared.errors import FileUnusable
from services.shared.image_files import image_files
from services.shared.json_text import read_json

STANDARD_INPUT: Final = "-"
_SCHEMES: Final = ("http://", "https://")
_MAX_BYTES: Final = 2**30


def require_sources(
    context: click.Context, argument: click.Parameter, sources: Sequence[str]
) -> Sequence[str]:
    """Return the sources: files, folders, URLs, or -. Raises BadParameter for any other."""
    for source in sources:
        is_path = source != STANDARD_INPUT and not source.startswith(_SCHEMES)
        if is_path and not _path(source).exists():
            message = f"{source!r} is no file, no folder, and no URL"
            raise click.BadParameter(message, context, argument)
    if sources.count(STANDARD_INPUT) > 1:
        message = "- can be given once: standard input holds one image"
        raise click.BadParameter(message, context, argument)
    return sources


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
    content = _standard_input() if str(file) == STANDARD_INPUT else file.read_bytes()
    try:
        vector = read_json(content)
    except ValueError:
        vector = None
    if not isinstance(vector, list):
        message = f"{file} holds no JSON list of numbers"
        raise FileUnusable(message)
    return QueryImage(name=str(file), vector=vector)


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


def _standard_input() -> bytes:
    """Return the bytes of standard input. Raises FileUnusable."""
    if sys.stdin.isatty():
        message = "standard input is a terminal: pipe an image into it, as in `curl URL | ...`"
        raise FileUnusable(message)
    content = sys.stdin.buffer.read(_MAX_BYTES + 1)
    if not content or len(content) > _MAX_BYTES:
        message = "standard input has " + (
            "more bytes than any image that a Simile takes"
            if content
            else "no bytes: - reads an image from it"
        )
        raise FileUnusable(message)
    return content
