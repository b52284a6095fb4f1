"""Where a collection's images come from: a folder, labelled by sub-folder or by manifest.csv."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from services.shared.errors import BuildFailed

LISTING: Final = "manifest.csv"
_PATH: Final = "path"
_LABEL: Final = "label"


@dataclass(frozen=True, slots=True)
class SourceImage:
    """One image file: path is relative to the folder, with forward slashes."""

    path: str
    label: str
    attributes: Mapping[str, str]

    @property
    def item_id(self) -> str:
        """16 hex digits of the path: the same in every version, safe in a URL."""
        return hashlib.blake2b(self.path.encode(), digest_size=8).hexdigest()


def list_images(folder: Path) -> list[SourceImage]:
    """The folder's images by path: those of manifest.csv if there is one, else every file.

    Files whose name or folder begins with a dot are left out. Whether a file is an image shows
    when it is read. Raises BuildFailed for a listing that can't be used.
    """
    listing = folder / LISTING
    images = _listed(listing) if listing.is_file() else _walked(folder)
    by_path = {image.path: image for image in images}
    return [by_path[path] for path in sorted(by_path)]


def locate(folder: Path, path: str) -> Path | None:
    """The file of that relative path, or None when it is missing or leads out of the folder.

    None, too, for a name that isn't UTF-8: neither the catalogue nor an answer could hold it.
    """
    try:
        path.encode()
        found = (folder / path).resolve()
    except ValueError:  # not UTF-8, or a NUL in the listing
        return None
    inside = found.is_relative_to(folder.resolve())
    return found if inside and found.is_file() else None


def _walked(folder: Path) -> Iterator[SourceImage]:
    for file in folder.rglob("*"):
        path = PurePosixPath(file.relative_to(folder))
        if not file.is_file() or any(part.startswith(".") for part in path.parts):
            continue
        label = path.parts[0] if len(path.parts) > 1 else ""
        yield SourceImage(str(path), label, {})


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
