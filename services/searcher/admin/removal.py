"""Deletes a collection from a volume, while services may be reading it."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.searcher.build.build_lock import locked
from services.shared.errors import FileUnusable, UnknownCollection
from services.shared.volume.volume import Volume

_PARTS: Final = frozenset({"ACTIVE", "versions", "building"})
"""The names of which a collection's folder has one at least."""

_OTHER_PARTS: Final = frozenset({"PINNED", "copying"})
_DELETED: Final = ".deleted-"
"""Begins the name of a folder that is being deleted: no collection's name begins with a dot."""


@dataclass(frozen=True, slots=True)
class Removed:
    """Describes what was deleted: the number of versions, and the bytes of all files."""

    versions: int
    bytes: int


def find_collection(volume: Volume, collection: str) -> Removed:
    """Return what `delete_collection` would delete.

    Raises UnknownCollection, or FileUnusable where the folder holds other things.
    """
    volume.require(collection)
    home = volume.home(collection)
    names = {path.name for path in home.iterdir()}
    if not names & _PARTS:
        message = f"{home} holds no collection; `simile index list` shows them"
        raise UnknownCollection(message)
    # Hidden files and ACTIVE.<pid> are parts of collections, too.
    foreign = [name for name in sorted(names - _PARTS - _OTHER_PARTS) if not _is_part(name)]
    if foreign:
        message = (
            f"{home / foreign[0]} is no part of a collection: nothing was deleted; move it away"
        )
        raise FileUnusable(message)
    sizes = [file.lstat().st_size for file in home.rglob("*") if not file.is_dir()]
    return Removed(len(volume.versions(collection)), sum(sizes))


def delete_collection(volume: Volume, collection: str) -> Removed:
    """Delete a collection with all its versions and all that builds keep for the next run.

    The folder is renamed first, so that services see all of the collection or nothing of it.
    Services that have a version open keep its files until they notice, which takes a second.

    Raises UnknownCollection, BuildInProgress while a build runs, FileUnusable where the files can't
    be removed.
    """
    removed = find_collection(volume, collection)
    home = volume.home(collection)
    with locked(home):
        home.rename(volume.root / f"{_DELETED}{collection}-{secrets.token_hex(4)}")
    for folder in _deleted(volume, collection):
        _remove(folder, collection)
    return removed


def _is_part(name: str) -> bool:
    return name.startswith((".", "ACTIVE."))


def _deleted(volume: Volume, collection: str) -> Iterator[Path]:
    """Return the folders to remove; those of an interrupted attempt are among them."""
    return volume.root.glob(f"{_DELETED}{collection}-????????")


def _remove(folder: Path, collection: str) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        message = (
            f"{collection} is deleted, but {folder} can't be removed: {error.strerror}; "
            "remove that folder"
        )
        raise FileUnusable(message) from error
