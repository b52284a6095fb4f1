"""Vectors of one model as they arrive: a flat file, and a table of where in it each one is.

A row of the table is committed once its bytes are on disk. Whatever ends the process, or the
machine, costs the last moments; it leaves no row with another vector than its own.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import zlib
from pathlib import Path
from typing import Final

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS arrived (model TEXT, sha256 TEXT, start INTEGER, bytes INTEGER,
  crc32 INTEGER, PRIMARY KEY (model, sha256)) WITHOUT ROWID;
"""
_KEPT_AFTER_VECTORS: Final = 256
_ROWS_AT_ONCE: Final = 1000
_KEPT_AFTER_SECONDS: Final = 1.0


class Arrivals:
    """`vectors-<hash of the model id>.f32` in the journal's folder; one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, directory: Path, model_id: str) -> None:
        """connection: of a database with SCHEMA, which may hold rows from before."""
        self.model = hashlib.blake2b(model_id.encode(), digest_size=8).hexdigest()
        self._connection = connection
        self._path = directory / f"vectors-{self.model}.f32"
        self._waiting: list[tuple[str, str, int, int, int]] = []
        self._unwritten = bytearray()
        self._kept = time.monotonic()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._end = self._agree()
        except BaseException:
            os.close(self._file)
            raise

    def add(self, sha256: str, vector: bytes) -> None:
        """Take the vector of a content; it is kept within moments."""
        start = self._end + len(self._unwritten)
        self._waiting.append((self.model, sha256, start, len(vector), zlib.crc32(vector)))
        self._unwritten += vector
        # To sync after each would cost a slow disk more than the embedding itself.
        late = time.monotonic() - self._kept > _KEPT_AFTER_SECONDS
        if late or len(self._waiting) >= _KEPT_AFTER_VECTORS:
            self.keep()

    def keep(self) -> None:
        """Write what waits to disk, then say where it is; after a failure it still waits."""
        if self._waiting:
            _write(self._file, self._unwritten, self._end)
            os.fsync(self._file)
            with self._connection:
                self._connection.executemany(
                    "INSERT OR REPLACE INTO arrived VALUES (?, ?, ?, ?, ?)", self._waiting
                )
            self._end += len(self._unwritten)
            self._waiting.clear()
            self._unwritten.clear()
        self._kept = time.monotonic()

    def find(self, sha256: str) -> bytes | None:
        """The vector of a content among those kept; one whose bytes are damaged is forgotten."""
        key = (self.model, sha256)
        where = self._connection.execute(
            "SELECT start, bytes, crc32 FROM arrived WHERE model = ? AND sha256 = ?", key
        ).fetchone()
        if where is None:
            return None
        start, size, crc32 = where
        vector = os.pread(self._file, size, start)
        if len(vector) == size and zlib.crc32(vector) == crc32:
            return vector
        with self._connection:
            self._connection.execute("DELETE FROM arrived WHERE model = ? AND sha256 = ?", key)
        return None

    def forget_damaged(self) -> None:
        """Try every vector; those whose bytes are damaged are forgotten."""
        after = ""
        while rows := self._connection.execute(
            "SELECT sha256 FROM arrived WHERE model = ? AND sha256 > ? ORDER BY sha256 LIMIT ?",
            (self.model, after, _ROWS_AT_ONCE),
        ).fetchall():
            for (after,) in rows:
                self.find(after)

    def close(self) -> None:
        """Close the file; what still waits is lost."""
        os.close(self._file)

    def _agree(self) -> int:
        """Make file and table agree after whatever ended the last build; where the file ends."""
        size = os.fstat(self._file).st_size
        with self._connection:
            self._connection.execute(
                "DELETE FROM arrived WHERE model = ? AND start + bytes > ?", (self.model, size)
            )
        end = int(
            self._connection.execute(
                "SELECT coalesce(max(start + bytes), 0) FROM arrived WHERE model = ?",
                (self.model,),
            ).fetchone()[0]
        )
        os.ftruncate(self._file, end)
        return end


def forget_all(connection: sqlite3.Connection, directory: Path) -> None:
    """Remove the vectors of every model; none may be open."""
    # The files first: on a full disk, that makes room for the rest.
    for file in directory.glob("vectors-*.f32"):
        file.unlink()
    with connection:
        connection.execute("DELETE FROM arrived")


def _write(file: int, content: bytearray, start: int) -> None:
    """All of it: one call may write a part only, and says why at the next."""
    with memoryview(content) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(file, view[done:], start + done)
