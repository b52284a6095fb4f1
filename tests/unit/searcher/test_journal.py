"""The journal of a build holds listings and hashes, survives a kill, and uses little memory."""

from __future__ import annotations

import hashlib
import itertools
import sqlite3
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from services.searcher.build import version_writer
from services.searcher.build.journal import FileFacts, Journal
from services.searcher.build.reuse import KeptVersions, Sources
from services.searcher.build.source.source_image import SourceImage
from services.searcher.build.tuning import Tuned
from services.searcher.progress import NoProgress
from services.searcher.settings import IndexSettings
from services.shared.volume.items import ItemCatalog
from services.shared.volume.manifest import Plan
from services.shared.volume.volume import Volume, read_vector

MODEL = "fake@0123456789ab/pixels/16"
DIMENSION = 16
MANY = 10_000


def facts_of(path: str) -> FileFacts:
    """Return the facts that reading the file would give."""
    return FileFacts(1, 1, hashlib.sha256(path.encode()).hexdigest(), 30, 20)


def vector_of(sha256: str) -> bytes:
    """Return a vector that depends on the hash."""
    return hashlib.shake_128(sha256.encode()).digest(4 * DIMENSION)


def images(count: int) -> Iterator[SourceImage]:
    """Yield images in an order that differs from that of their paths."""
    for number in range(count):
        yield SourceImage(f"{number % 7}/{number:06}.jpg", "label", {"number": str(number)})


def test_of_a_path_given_twice_the_last_counts(tmp_path: Path) -> None:
    """Later rows of a listing correct earlier ones."""
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        twice = [SourceImage("a.jpg", "old", {}), SourceImage("a.jpg", "new", {})]
        assert journal.list_images(twice) == 1
        journal.put_file("a.jpg", facts_of("a.jpg"))
        assert [item.label for item in journal.items()] == ["new"]


def test_a_listing_in_several_parts_is_whole(tmp_path: Path) -> None:
    """No image is lost where a part ends, whether the last part is full or not."""
    for count in (0, 9, 10, 11, 20):
        with closing(Journal(tmp_path / "journal.sqlite", batch_rows=10)) as journal:
            assert journal.list_images(images(count)) == count


def test_hashes_survive_the_process_that_computed_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hashes are committed while files are read, so that a kill does not cost hours of reading."""
    clock = itertools.count()
    monkeypatch.setattr("services.searcher.build.journal.time.monotonic", lambda: next(clock))
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        journal.list_images(images(10))
        for path, known in journal.unread():
            assert known is None
            journal.put_file(path, facts_of(path))
        # Another connection sees what a process sees that starts after a kill.
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:
            (count,) = other.execute("SELECT count(*) FROM hashes").fetchone()
    assert count >= 8


def test_contents_without_a_vector_of_the_model_are_missing(tmp_path: Path) -> None:
    """Each content is listed once, by path; vectors of another model don't count."""
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        journal.list_images(images(4))
        for path, _ in journal.unread():
            journal.put_file(path, facts_of("the same" if path > "1" else path))
        done, *_ = journal.contents()
        journal.put_vector(done.sha256, MODEL, vector_of(done.sha256))
        assert journal.missing(MODEL, None) == 1
        assert [content.path for content in journal.missing_contents()] == ["1/000001.jpg"]
        assert journal.missing("other@0123456789ab/pixels/16", None) == 2


def test_memory_does_not_grow_with_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From listing to written files, Python holds a few rows of 10,000 at any time."""
    plan = Plan(method="exact", dimension=DIMENSION)
    tuned = Tuned(plan=plan, recall=1.0, energy=1.0, measured=(), shards=())
    monkeypatch.setattr(version_writer, "tune", lambda *_: tuned)
    tracemalloc.start()
    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        journal.list_images(images(MANY))
        for path, _ in journal.unread():
            journal.put_file(path, facts_of(path))
        assert journal.missing(MODEL, None) == MANY
        for content in journal.missing_contents():
            journal.put_vector(content.sha256, MODEL, vector_of(content.sha256))
        building = tmp_path / "many" / "building"
        building.mkdir(parents=True)
        kept = KeptVersions(Volume(tmp_path), "many", journal)
        written, manifest = version_writer.write_version(
            building, Sources(str(tmp_path), ()), journal, MODEL, kept, IndexSettings(),
            progress=NoProgress(),
        )  # fmt: skip
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As Python objects, the items and vectors would take 9 MB.
    assert peak < 3_000_000
    assert (manifest.count, manifest.dimension) == (MANY, DIMENSION)
    items = ItemCatalog(written / "items.sqlite")
    for item in items.sample(50):
        assert read_vector(written, item.position, DIMENSION) == vector_of(item.sha256)
    assert [item.path for item in items.sample(3)] == sorted(item.path for item in items.sample(3))
    items.close()
