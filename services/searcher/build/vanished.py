"""Finds the images of the version before that are no longer in the folder.

A file that was renamed or moved within the folder has not vanished: its bytes are still there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.shared.errors import FolderUnreadable, ImagesMissing, UnknownItem

_MAX_NAMED: Final = 10
_MAX_FOLDERS: Final = 5

_WAY_OUT: Final = (
    ". Is a disk not mounted? The index stays as it was. Bring them back, or run the command again "
    "with --allow-missing (SIMILE_INDEX_MAX_MISSING=1) to go on without them"
)
_GONE: Final = (
    " FROM previous.items p LEFT JOIN listing l ON l.path = p.path"
    " WHERE (l.path IS NULL OR l.code = ?) AND NOT EXISTS"
    " (SELECT 1 FROM listing k WHERE k.sha256 = p.sha256 AND k.code IS NULL)"
)
_INSIDE: Final = (
    "CASE instr(p.path, '/') WHEN 0 THEN '' ELSE substr(p.path, 1, instr(p.path, '/')) END"
)


@dataclass(frozen=True, slots=True)
class Vanished:
    """Describes the images that are no longer there.

    Attributes:
        count: how many.
        total: the images of the version before.
        first: the paths of some of them.
        folders: the folders that most of them were in, with the number in each; "" is the top.
        unreadable: the folders that can't be read and held images before.
    """

    count: int = 0
    total: int = 0
    first: Sequence[str] = ()
    folders: Sequence[tuple[str, int]] = ()
    unreadable: Sequence[str] = ()

    def require_few(self, max_missing: float) -> None:
        """Raise ImagesMissing where more than that share is missing, or a folder is unreadable.

        A single image may always be missing; with a share of 1 everything may.
        """
        if max_missing < 1 and self.unreadable:
            message = f"these folders can't be read: {', '.join(self.unreadable)}"
        elif max_missing < 1 and self.count > max(1, max_missing * self.total):
            folders = (f"{name or 'the top folder'} ({count:,})" for name, count in self.folders)
            where = ", ".join(folders)
            message = f"{self.count:,} of {self.total:,} images are no longer there: {where}"
        else:
            return
        raise ImagesMissing(message + _WAY_OUT)


def find(connection: sqlite3.Connection, items: Path) -> Vanished:
    """Compare a journal's listing with the items of a version. Raises sqlite3.Error."""
    with attached(connection, items):
        total = connection.execute("SELECT count(*) FROM previous.items").fetchone()[0]
        code = (UnknownItem.code,)
        count = connection.execute(f"SELECT count(*){_GONE}", code).fetchone()[0]
        first = connection.execute(
            f"SELECT p.path{_GONE} ORDER BY p.path LIMIT {_MAX_NAMED}",
            code,
        ).fetchall()
        folders = connection.execute(
            f"SELECT {_INSIDE} inside, count(*) n{_GONE}"
            f" GROUP BY inside ORDER BY n DESC, inside LIMIT {_MAX_FOLDERS}",
            code,
        ).fetchall()
        return Vanished(
            count, total, tuple(path for (path,) in first), tuple(folders), _unreadable(connection)
        )


def _unreadable(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the folders that can't be read now, and held images before."""
    found = connection.execute(
        "SELECT path FROM listing WHERE code = ? ORDER BY path", (FolderUnreadable.code,)
    ).fetchall()
    held = "SELECT 1 FROM previous.items WHERE path >= ? AND path < ? LIMIT 1"
    return tuple(
        folder
        for (folder,) in found
        if connection.execute(held, (f"{folder}/", f"{folder}0")).fetchone()
    )


@contextmanager
def attached(connection: sqlite3.Connection, items: Path) -> Iterator[None]:
    """Attach a version's items as `previous` while inside; no transaction may be open."""
    address = f"{items.absolute().as_uri()}?mode=ro&immutable=1"
    connection.execute("ATTACH ? AS previous", (address,))
    try:
        yield
    finally:
        connection.execute("DETACH previous")
