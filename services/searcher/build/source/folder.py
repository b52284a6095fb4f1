"""Where a collection's images come from: a folder, labelled by sub-folder or by manifest.csv."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from services.searcher.build.source.listing import LISTING, read_listing
from services.searcher.build.source.source_image import SourceImage
from services.shared.errors import BuildFailed, UnknownItem

_LINK: Final = "a link to a folder, or to nothing: only links to files are followed"


def list_images(folder: Path) -> Iterator[SourceImage]:
    """The folder's images: those of manifest.csv if there is one, else every file; in any order.

    Files whose name or folder begins with a dot are left out. Whether a file is an image shows
    when it is read. Raises BuildFailed for a listing that can't be used.
    """
    listing = folder / LISTING
    for image in read_listing(listing) if listing.is_file() else _walked(folder):
        yield _named(image)


def identity(folder: Path) -> tuple[int, int]:
    """Return which folder it is: not the same after a mount came or went. Raises BuildFailed."""
    try:
        stat = folder.stat()
    except OSError as error:
        message = f"{folder} can't be read: {error.strerror}"
        raise BuildFailed(message) from error
    return stat.st_dev, stat.st_ino


def require_same(folder: Path, before: tuple[int, int]) -> None:
    """Raise BuildFailed where the folder is gone, or another: a lost mount looks empty."""
    if identity(folder) != before:
        message = (
            f"{folder} was replaced while it was read, as when a mount comes or goes: nothing was "
            "published; run the build again"
        )
        raise BuildFailed(message)


def locate(folder: Path, path: str) -> Path | None:
    """The file of that relative path, or None when it is missing or leads out of the folder."""
    try:
        found = (folder / path).resolve()
    except ValueError:  # a NUL in the listing
        return None
    inside = found.is_relative_to(folder.resolve())
    return found if inside and found.is_file() else None


def _named(image: SourceImage) -> SourceImage:
    """The same, or a fault for a name that neither the catalogue nor an answer could hold."""
    try:
        "".join((image.path, image.label, *chain(*image.attributes.items()))).encode()
    except UnicodeEncodeError:
        readable = image.path.encode(errors="backslashreplace").decode()
        fault = (UnknownItem.code, "its name, label or an attribute is not UTF-8")
        return SourceImage(readable, "", {}, fault)
    return image


def _walked(folder: Path) -> Iterator[SourceImage]:
    """Every file, as the disk lists it: a folder of a million is never held as a whole."""
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        label = inside.partition("/")[0]
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    path = f"{inside}/{entry.name}" if inside else entry.name
                    if _is(entry.is_dir, follow_symlinks=False):
                        waiting.append(path)
                    elif _is(entry.is_file):
                        yield SourceImage(path, label, {})
                    elif _is(entry.is_symlink):
                        yield SourceImage(path, "", {}, (UnknownItem.code, _LINK))
        except OSError as error:
            fault = (UnknownItem.code, f"the folder can't be read: {error.strerror}")
            yield SourceImage(inside or ".", label, {}, fault)


def _is(asked: Callable[..., bool], **how: bool) -> bool:
    """Whether the entry is that; what can't even be asked is nothing."""
    try:
        return asked(**how)
    except OSError:
        return False
