"""Where a collection's images come from: a folder, labelled by sub-folder or by manifest.csv."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final

from services.shared.errors import BuildFailed, UnknownItem

LISTING: Final = "manifest.csv"
_PATH: Final = "path"
_LABEL: Final = "label"


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image file: path is relative to the folder, with forward slashes.

    fault: code and reason, where the file can't be in a collection whatever it holds.
    """

    path: str
    label: str
    attributes: Mapping[str, str]
    fault: tuple[str, str] | None = None

    @property
    def item_id(self) -> str:
        """16 hex digits of the path: the same in every version, safe in a URL."""
        return hashlib.blake2b(self.path.encode(), digest_size=8).hexdigest()


def list_images(folder: Path) -> Iterator[SourceImage]:
    """The folder's images: those of manifest.csv if there is one, else every file; in any order.

    Files whose name or folder begins with a dot are left out. Whether a file is an image shows
    when it is read. Raises BuildFailed for a listing that can't be used.
    """
    listing = folder / LISTING
    for image in _listed(listing) if listing.is_file() else _walked(folder):
        yield _named(image)


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
        except OSError as error:
            fault = (UnknownItem.code, f"the folder can't be read: {error.strerror}")
            yield SourceImage(inside or ".", label, {}, fault)


def _is(asked: Callable[..., bool], **how: bool) -> bool:
    """Whether the entry is that; what can't even be asked is nothing."""
    try:
        return asked(**how)
    except OSError:
        return False


def _listed(listing: Path) -> Iterator[SourceImage]:
    try:
        with listing.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines, restkey=None)
            if _PATH not in (rows.fieldnames or ()):
                message = f"{listing} has no column {_PATH!r}; it needs path, and may have label"
                raise BuildFailed(message)
            for row in rows:
                known = {name: value or "" for name, value in row.items() if name}
                path, label = known.pop(_PATH), known.pop(_LABEL, "")
                yield SourceImage(str(PurePosixPath(path)), label, known)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        message = f"{listing} can't be read: {error}"
        raise BuildFailed(message) from error
