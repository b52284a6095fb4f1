"""Vectors of an unfinished build survive kills, torn files, damage and full disks."""

from __future__ import annotations

import hashlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.searcher.build import vector_log
from services.searcher.build.vector_log import VectorLog
from tests.support.full_disk import full_disk

MODEL = "fake@0123456789ab/pixels/8"

ENDLESS = """
import sys
from itertools import count
from pathlib import Path
from services.searcher.build.journal import Journal
from tests.unit.searcher.test_vector_log import MODEL, sha256_of, vector_of

journal = Journal(Path(sys.argv[1]))
for number in count():
    journal.put_vector(sha256_of(number), MODEL, vector_of(number))
    if number == 1000:
        print("on its way", flush=True)
"""


def sha256_of(number: int) -> str:
    """Return the hash of the content with that number."""
    return hashlib.sha256(str(number).encode()).hexdigest()


def vector_of(number: int) -> bytes:
    """Return the vector of that content: 32 bytes that no other content has."""
    return hashlib.blake2b(str(number).encode(), digest_size=32).digest()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Return a journal's database."""
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    connection.executescript(vector_log.SCHEMA)
    yield connection
    connection.close()


def kept(connection: sqlite3.Connection, directory: Path, count: int = 3) -> Path:
    """Store some vectors as an earlier build did, and return their file."""
    before = VectorLog(connection, directory, MODEL)
    for number in range(count):
        before.add(sha256_of(number), vector_of(number))
    before.flush()
    before.close()
    return next(directory.glob("vectors-*.f32"))


def found(opened: VectorLog, count: int = 3) -> list[bool]:
    """Return which of the first contents have a vector, and check that each vector is right."""
    vectors = [opened.find(sha256_of(number)) for number in range(count)]
    assert all(vector in {None, vector_of(number)} for number, vector in enumerate(vectors)), (
        "a content has another's vector"
    )
    return [vector is not None for vector in vectors]


def test_a_killed_build_loses_its_last_rows_and_mixes_up_nothing(tmp_path: Path) -> None:
    """After kill -9 every stored row has its own vector, and more can be added."""
    path = tmp_path / "journal.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "on its way\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM arrived").fetchone()
    assert count >= 768
    opened = VectorLog(connection, tmp_path, MODEL)
    assert all(found(opened, count))
    opened.add(sha256_of(count), vector_of(count))
    opened.flush()
    assert all(found(opened, count + 1))
    opened.close()
    connection.close()


def test_a_torn_tail_is_overwritten(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """Bytes without a row are dropped, whether half a vector or several."""
    file = kept(connection, tmp_path)
    sound = file.read_bytes()
    file.write_bytes(sound + b"half a vector")
    opened = VectorLog(connection, tmp_path, MODEL)
    opened.add(sha256_of(3), vector_of(3))
    opened.flush()
    assert file.read_bytes() == sound + vector_of(3)
    assert found(opened, 4) == [True] * 4
    opened.close()


def test_rows_whose_bytes_are_gone_are_forgotten(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    """A file that lost its end, or was deleted, loses its rows."""
    file = kept(connection, tmp_path)
    file.write_bytes(file.read_bytes()[:40])
    opened = VectorLog(connection, tmp_path, MODEL)
    assert found(opened) == [True, False, False]
    opened.close()
    file.unlink()
    opened = VectorLog(connection, tmp_path, MODEL)
    assert found(opened) == [False] * 3
    opened.close()


def test_a_damaged_vector_is_no_vector(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """A flipped bit removes a single vector, which is not published."""
    file = kept(connection, tmp_path)
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    opened = VectorLog(connection, tmp_path, MODEL)
    opened.forget_damaged()
    assert found(opened) == [True, False, True]
    assert connection.execute("SELECT count(*) FROM arrived").fetchone() == (2,)
    opened.close()


def test_each_model_has_its_own(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """The vectors of a model are not found for another, and all are removed together."""
    kept(connection, tmp_path)
    other = VectorLog(connection, tmp_path, "other@0123456789ab/pixels/8")
    assert found(other) == [False] * 3
    other.close()
    vector_log.forget_all(connection, tmp_path)
    assert not list(tmp_path.glob("vectors-*"))
    opened = VectorLog(connection, tmp_path, MODEL)
    assert found(opened) == [False] * 3
    opened.close()


def test_a_write_without_space_is_repeated(connection: sqlite3.Connection, tmp_path: Path) -> None:
    """A failed write is repeated at the same place, once there is space."""
    kept(connection, tmp_path)
    opened = VectorLog(connection, tmp_path, MODEL)
    opened.add(sha256_of(3), vector_of(3))
    with full_disk(), pytest.raises(OSError, match="File too large"):
        opened.flush()
    assert found(opened, 4) == [True, True, True, False]
    opened.flush()
    assert found(opened, 4) == [True] * 4
    opened.close()
