"""Stores the vectors of a model as they arrive: a flat file, and a table of their places in it.

A row of the table is committed after its bytes are on disk. A crash of the process or the
machine loses at most the last second, and leaves no row with a wrong vector.
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
_FLUSH_VECTORS: Final = 256
_BLOCK_ROWS: Final = 1000
_FLUSH_SECONDS: Final = 1.0


class VectorLog:
    """`vectors-<hash of the model id>.f32` in the journal's folder; one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, directory: Path, model_id: str) -> None:
        """connection: to a database with SCHEMA, which may have rows of earlier runs."""
        self.model = hashlib.blake2b(model_id.encode(), digest_size=8).hexdigest()
        self._connection = connection
        self._path = directory / f"vectors-{self.model}.f32"
        self._waiting: list[tuple[str, str, int, int, int]] = []
        self._unwritten = bytearray()
        self._flushed = time.monotonic()
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._end = self._recover()
        except BaseException:
            os.close(self._file)
            raise

    def add(self, sha256: str, vector: bytes) -> None:
        """Add the vector of a content; it is flushed within about a second."""
        start = self._end + len(self._unwritten)
        self._waiting.append((self.model, sha256, start, len(vector), zlib.crc32(vector)))
        self._unwritten += vector
        # fsync after each vector would take longer than the embedding on a slow disk.
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if late or len(self._waiting) >= _FLUSH_VECTORS:
            self.flush()

    def flush(self) -> None:
        """Write pending vectors, then their rows; after a failure they stay pending."""
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
        self._flushed = time.monotonic()

    def find(self, sha256: str) -> bytes | None:
        """Return the flushed vector of a content, or None; a damaged vector is deleted."""
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
        """Check every vector; delete damaged ones."""
        after = ""
        while rows := self._connection.execute(
            "SELECT sha256 FROM arrived WHERE model = ? AND sha256 > ? ORDER BY sha256 LIMIT ?",
            (self.model, after, _BLOCK_ROWS),
        ).fetchall():
            for (after,) in rows:
                self.find(after)

    def close(self) -> None:
        """Close the file; pending vectors are lost."""
        os.close(self._file)

    def _recover(self) -> int:
        """Make file and table consistent after a crash; return the end of the file."""
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
    """Delete the vectors of every model; no log may be open."""
    # Files first: on a full disk this makes room for the transaction.
    for file in directory.glob("vectors-*.f32"):
        file.unlink()
    with connection:
        connection.execute("DELETE FROM arrived")


def _write(file: int, content: bytearray, start: int) -> None:
    """Write all bytes: a call may write only a part, and raises at the next."""
    with memoryview(content) as view:
        done = 0
        while done < len(view):
            done += os.pwrite(file, view[done:], start + done)
