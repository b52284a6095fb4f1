"""File errors are explained: a full disk by name, and other faults by theirs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from services.searcher.build import disk_errors


def test_a_full_disk_says_what_to_do(tmp_path: Path) -> None:
    """The error of a full device becomes advice."""
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_bytes(b"x")
    failed = disk_errors.explained(tmp_path, full.value)
    assert str(tmp_path) in str(failed)
    assert "make room there" in str(failed)


@pytest.mark.parametrize(
    "error",
    [OSError("128 requested and 64 written"), OSError(27, "File too large")],
    ids=["numpy", "limit"],
)
def test_a_write_cut_short_is_a_full_disk(tmp_path: Path, error: OSError) -> None:
    """A full disk is recognized whichever library reports it, in any words."""
    assert "no space left" in str(disk_errors.explained(tmp_path, error))


def test_a_full_database_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite's own error for a full disk is recognized."""
    connection = sqlite3.connect(tmp_path / "small.sqlite")
    connection.execute("PRAGMA max_page_count=2")
    with pytest.raises(sqlite3.OperationalError) as full:
        connection.executescript("CREATE TABLE a (b); CREATE TABLE c (d);")
    connection.close()
    assert "no space left" in str(disk_errors.explained(tmp_path, full.value))


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), OSError("no number"), sqlite3.DatabaseError("malformed")],
    ids=["io", "unnumbered", "sqlite"],
)
def test_other_faults_keep_their_own_words(tmp_path: Path, error: OSError | sqlite3.Error) -> None:
    """Other faults are not reported as missing space."""
    failed = str(disk_errors.explained(tmp_path, error))
    assert failed == f"{tmp_path} can't be used: {str(error).removeprefix('[Errno 5] ')}"
