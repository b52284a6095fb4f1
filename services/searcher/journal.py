"""What a build remembers on disk, so that it can resume: file hashes, vectors as they arrive."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class Journal:
    """`building/journal.sqlite` of a collection; used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False)
        # A crash of the machine may cost the last moments, never the file.
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        with self._connection:
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER,"
                " mtime_ns INTEGER, sha256 TEXT, width INTEGER, height INTEGER)"
            )
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (sha256 TEXT, model_id TEXT, vector BLOB,"
                " PRIMARY KEY (sha256, model_id))"
            )

    def known_hash(self, path: str, size: int, mtime_ns: int) -> tuple[str, int, int] | None:
        """(sha256, width, height) of a file that has not changed since it was hashed."""
        row: tuple[str, int, int] | None = self._connection.execute(
            "SELECT sha256, width, height FROM hashes WHERE path = ? AND size = ? AND mtime_ns = ?",
            (path, size, mtime_ns),
        ).fetchone()
        return row

    def remember_hash(
        self, path: str, size: int, mtime_ns: int, *, sha256: str, width: int, height: int
    ) -> None:
        """Keep a file's hash and size in pixels."""
        self._connection.execute(
            "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?, ?, ?)",
            (path, size, mtime_ns, sha256, width, height),
        )

    def vector(self, sha256: str, model_id: str) -> bytes | None:
        """The vector of these bytes by that model, if it has arrived."""
        row = self._connection.execute(
            "SELECT vector FROM vectors WHERE sha256 = ? AND model_id = ?", (sha256, model_id)
        ).fetchone()
        return row[0] if row else None

    def remember_vector(self, sha256: str, model_id: str, vector: bytes) -> None:
        """Keep a vector that has arrived."""
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", (sha256, model_id, vector)
            )

    def commit(self) -> None:
        """Write the hashes that wait."""
        self._connection.commit()

    def forget_vectors(self) -> None:
        """Drop the vectors: they are in a published version now."""
        with self._connection:
            self._connection.execute("DELETE FROM vectors")
        self._connection.execute("VACUUM")

    def close(self) -> None:
        """Write what waits and close the file."""
        self._connection.commit()
        self._connection.close()
