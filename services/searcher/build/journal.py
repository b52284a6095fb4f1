"""Stores a build's state on disk, for resuming it and for bounded memory.

The state is the listing of this run, hashes of files, and contents to embed.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from services.searcher.build import vanished, vector_log
from services.searcher.build.source.source_image import SourceImage
from services.searcher.build.vanished import Vanished
from services.searcher.build.vector_log import VectorLog
from services.shared.errors import InvalidRow
from services.shared.volume.items import Item

_BLOCK_ROWS: Final = 1000
_BATCH_ROWS: Final = 20_000
_COMMITTED_AFTER_SECONDS: Final = 2.0
_CACHE_KIBIBYTES: Final = 64 * 1024
"""Enough for the upper tree levels of a million rows in random order."""

_IN_PREVIOUS: Final = "EXISTS (SELECT 1 FROM previous.items p WHERE p.sha256 = missing.sha256)"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER,
  sha256 TEXT, width INTEGER, height INTEGER) WITHOUT ROWID;
DROP TABLE IF EXISTS vectors;
DROP TABLE IF EXISTS missing;
CREATE TABLE missing (path TEXT PRIMARY KEY, sha256 TEXT) WITHOUT ROWID;
DROP TABLE IF EXISTS listing;
CREATE TABLE listing (path TEXT PRIMARY KEY, item_id TEXT, label TEXT, attributes TEXT,
  sha256 TEXT, code TEXT, detail TEXT, given INTEGER) WITHOUT ROWID;
CREATE INDEX listing_sha256 ON listing (sha256, code);
"""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts of a file when it was read: its state, the hash of its bytes, its size in pixels."""

    size: int
    mtime_ns: int
    sha256: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class FailedImage:
    """A file that was left out, with the reason."""

    path: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to embed: their hash, and a file that holds them."""

    sha256: str
    path: str


class Journal:
    """`building/journal.sqlite` of a collection; used from one thread at a time."""

    def __init__(self, path: Path, *, batch_rows: int = _BATCH_ROWS) -> None:
        """Open or create the journal; `batch_rows`: the rows of a listing in a transaction."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, uri=True)
        # A crash of the machine may lose the last second, but not damage the file.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(f"PRAGMA cache_size=-{_CACHE_KIBIBYTES}")
        self._connection.executescript(vector_log.SCHEMA + _SCHEMA)
        self._directory = path.parent
        self._batch_rows = batch_rows
        self._logs: dict[str, VectorLog] = {}
        self._committed = time.monotonic()

    def list_images(self, images: Iterable[SourceImage]) -> int:
        """Begin a run with these images; return how many. A repeated path counts once, the last."""
        rows = (_listed(image) for image in images)
        # In parts: the log of a single large transaction would take as much disk again.
        while self._insert_listed(islice(rows, self._batch_rows)):
            pass
        return self._count("SELECT count(*) FROM listing")

    def _insert_listed(self, rows: Iterable[tuple[str | None, ...]]) -> int:
        with self._connection:
            return self._connection.executemany(
                "INSERT INTO listing VALUES (?, ?, ?, ?, NULL, ?, ?, 1)"
                " ON CONFLICT (path) DO UPDATE SET label = excluded.label,"
                " attributes = excluded.attributes, code = excluded.code,"
                " detail = excluded.detail, given = given + 1",
                rows,
            ).rowcount

    def unread(self) -> Iterator[tuple[str, FileFacts | None]]:
        """Yield every path of the run, with the facts of the file from earlier runs."""
        for row in self._pages(
            "SELECT path, size, mtime_ns, h.sha256, width, height FROM listing l"
            " LEFT JOIN hashes h USING (path) WHERE code IS NULL AND path > ?"
            " ORDER BY path LIMIT ?"
        ):
            yield row[0], None if row[1] is None else FileFacts(*row[1:])

    def put_file(self, path: str, facts: FileFacts) -> None:
        """Store the facts of a file: within about a second, or by `commit`."""
        self._connection.execute(
            "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)",
            (path, facts.size, facts.mtime_ns, facts.sha256, facts.width, facts.height),
        )
        self._connection.execute(
            "UPDATE listing SET sha256 = ? WHERE path = ?", (facts.sha256, path)
        )
        # Not after each file: that takes three times as long for a million.
        if time.monotonic() - self._committed > _COMMITTED_AFTER_SECONDS:
            self.commit()

    def fail_file(self, path: str, code: str, detail: str) -> None:
        """Leave a file out."""
        self._connection.execute(
            "UPDATE listing SET code = ?, detail = ? WHERE path = ?", (code, detail, path)
        )

    def fail_content(self, sha256: str, code: str, detail: str) -> int:
        """Leave out every file of this content, which the next run reads again; return how many.

        A file whose bytes changed since they were hashed would otherwise fail in every run.
        """
        with self._connection:
            self._connection.execute(
                "DELETE FROM hashes WHERE path IN (SELECT path FROM listing WHERE sha256 = ?)",
                (sha256,),
            )
            return self._connection.execute(
                "UPDATE listing SET code = ?, detail = ? WHERE sha256 = ?", (code, detail, sha256)
            ).rowcount

    def contents(self) -> Iterator[Content]:
        """Yield every usable file of the run, by path."""
        for row in self._pages(
            "SELECT path, sha256 FROM listing WHERE code IS NULL AND path > ? ORDER BY path LIMIT ?"
        ):
            yield Content(row[1], row[0])

    def missing(self, model_id: str, previous_items: Path | None) -> int:
        """Find out which contents have no vector, here or in the version before; how many."""
        model = self._log_of(model_id).model
        self.commit()  # nothing can be attached within a transaction
        # A table of the journal, not a temporary one: /tmp may be small.
        with self._connection:
            self._connection.execute("DELETE FROM missing")
            self._connection.execute(
                "INSERT INTO missing SELECT min(path), sha256 FROM listing l"
                " WHERE code IS NULL AND NOT EXISTS"
                " (SELECT 1 FROM arrived a WHERE model = ? AND a.sha256 = l.sha256)"
                " GROUP BY sha256",
                (model,),
            )
        if previous_items is not None:
            self.find_missing(previous_items)
        return self.count_missing()

    def find_missing(self, items: Path) -> None:
        """Take the contents that a version has vectors of off the missing ones."""
        with vanished.attached(self._connection, items), self._connection:
            self._connection.execute(f"DELETE FROM missing WHERE {_IN_PREVIOUS}")  # noqa: S608 (a constant)

    def misses_any_of(self, items: Path) -> bool:
        """Return whether a version has vectors of missing contents."""
        with vanished.attached(self._connection, items):
            found = self._connection.execute(
                f"SELECT 1 FROM missing WHERE {_IN_PREVIOUS} LIMIT 1"  # noqa: S608 (a constant)
            ).fetchone()
        return found is not None

    def count_missing(self) -> int:
        """Return how many contents have no vector yet."""
        return self._count("SELECT count(*) FROM missing")

    def vanished(self, items: Path) -> Vanished:
        """Find the images of a version that are no longer in the folder."""
        self.commit()
        return vanished.find(self._connection, items)

    def forget_files(self) -> None:
        """Forget what is known of files: their folder is another one."""
        with self._connection:
            self._connection.execute("DELETE FROM hashes")

    def missing_contents(self) -> Iterator[Content]:
        """Yield the contents that `missing` found, by path."""
        for row in self._pages(
            "SELECT path, sha256 FROM missing WHERE path > ? ORDER BY path LIMIT ?"
        ):
            yield Content(row[1], row[0])

    def put_vector(self, sha256: str, model_id: str, vector: bytes) -> None:
        """Store a vector: within about a second, or by `commit`."""
        self._log_of(model_id).add(sha256, vector)

    def vector(self, sha256: str, model_id: str) -> bytes | None:
        """Return the vector of a content, if it is committed and intact."""
        return self._log_of(model_id).find(sha256)

    def forget_damaged(self, model_id: str) -> None:
        """Delete every damaged vector: the next run requests them again."""
        self._log_of(model_id).forget_damaged()

    def items(self) -> Iterator[Item]:
        """Yield the items of the run by position."""
        for position, row in enumerate(
            self._pages(
                "SELECT l.path, item_id, label, attributes, width, height, l.sha256"
                " FROM listing l JOIN hashes h USING (path)"
                " WHERE code IS NULL AND l.path > ? ORDER BY l.path LIMIT ?"
            )
        ):
            path, item_id, label, attributes, width, height, sha256 = row
            known = json.loads(attributes)
            yield Item(position, item_id, path, label, known, width, height, sha256)

    def usable(self) -> int:
        """Return how many files of the run are not left out."""
        return self._count("SELECT count(*) FROM listing WHERE code IS NULL")

    def failures(self) -> Iterator[FailedImage]:
        """Yield the failures by path: files, and rows of a repeated path."""
        for path, code, detail, given in self._pages(
            "SELECT path, code, detail, given FROM listing"
            " WHERE (code IS NOT NULL OR given > 1) AND path > ? ORDER BY path LIMIT ?"
        ):
            if given > 1:
                why = f"manifest.csv gives this path {given} times: only the last row counts"
                yield FailedImage(path, InvalidRow.code, why)
            if code is not None:
                yield FailedImage(path, code, detail)

    def commit(self) -> None:
        """Write pending rows and vectors."""
        self._connection.commit()
        for log in self._logs.values():
            log.flush()
        self._committed = time.monotonic()

    def forget_vectors(self) -> None:
        """Delete the vectors: a published version has them now."""
        self._close_log()
        vector_log.forget_all(self._connection, self._directory)

    def close(self) -> None:
        """Write pending rows and vectors, and close the files."""
        with closing(self._connection):
            try:
                self.commit()
            finally:
                self._close_log()

    def _log_of(self, model_id: str) -> VectorLog:
        if model_id not in self._logs:
            opened = VectorLog(self._connection, self._directory, model_id)
            self._logs[model_id] = opened
        return self._logs[model_id]

    def _close_log(self) -> None:
        while self._logs:
            _, log = self._logs.popitem()
            log.close()

    def _pages(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query by path (its first column), page by page.

        Without a long cursor, since rows may change during the iteration.
        """
        after = ""
        while rows := self._connection.execute(query, (*parameters, after, _BLOCK_ROWS)).fetchall():
            yield from rows
            after = rows[-1][0]

    def _count(self, query: str) -> int:
        return int(self._connection.execute(query).fetchone()[0])


def _listed(image: SourceImage) -> tuple[str | None, ...]:
    attributes = json.dumps(dict(image.attributes), sort_keys=True)
    return (image.path, image.item_id, image.label, attributes, *(image.fault or (None, None)))
