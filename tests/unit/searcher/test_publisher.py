"""Versions are activated, rolled back, and removed when no reader can hold them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from services.searcher.admin import versions as publisher
from services.searcher.index.index import Index
from services.shared.errors import IndexCorrupt, UnknownCollection, UnknownVersion
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Publish four versions of a collection, the last one active, all an hour old."""
    volume = Volume(tmp_path)
    for number in range(4):
        publish_version(volume, "birds", unit_vectors(20), items(20), number=number)
    _age(volume, 3600)
    return volume


def _age(volume: Volume, seconds: float) -> None:
    home = volume.home("birds")
    then = time.time() - seconds
    for path in (home / "ACTIVE", *(home / "versions").iterdir()):
        os.utime(path, (then, then))


def _prune(volume: Volume, **how: bool) -> list[publisher.Fate]:
    rows = publisher.prune(volume, "birds", keep=1, min_age_seconds=600, **how)
    assert all(row.bytes > 0 for row in rows)
    return [row.fate for row in rows]


def test_pruning_leaves_the_active_one_and_the_newest(volume: Volume) -> None:
    """Of four versions, the active one and the one before it stay."""
    assert _prune(volume, dry_run=True) == ["removed", "removed", "kept", "active"]
    assert len(volume.versions("birds")) == 4
    assert _prune(volume) == ["removed", "removed", "kept", "active"]
    assert len(volume.versions("birds")) == 2
    publisher.verify(volume, "birds", volume.active("birds"))


def test_pruning_leaves_what_a_reader_holds(volume: Volume) -> None:
    """A replica that refused the newer versions may answer from an old one."""
    held = Index.open(volume, "birds", volume.versions("birds")[0])
    assert _prune(volume) == ["held", "removed", "kept", "active"]
    assert len(held.engine.search(unit_vectors(1), 3)) == 1
    del held
    assert _prune(volume) == ["removed", "kept", "active"]


def test_pruning_waits_after_a_swap(volume: Volume) -> None:
    """A version that was active a moment ago may still be about to be opened."""
    publisher.rollback(volume, "birds")
    assert _prune(volume) == ["recent", "recent", "active", "kept"]


def test_pruning_keeps_an_active_version_however_old(volume: Volume) -> None:
    """After a rollback to the oldest version, that version stays."""
    oldest = volume.versions("birds")[0]
    publisher.activate(volume, "birds", oldest)
    _age(volume, 3600)
    assert _prune(volume) == ["active", "removed", "removed", "kept"]
    assert volume.active("birds") == oldest


def test_a_broken_version_is_pruned_like_others(volume: Volume) -> None:
    """A version without a manifest is pruned, too."""
    directory = volume.directory("birds", volume.versions("birds")[0])
    (directory / "manifest.json").unlink()
    _age(volume, 3600)
    assert _prune(volume) == ["removed", "removed", "kept", "active"]


def test_going_back_activates_the_version_before(volume: Volume) -> None:
    """Each rollback goes back a version, until no older version exists."""
    versions = volume.versions("birds")
    for expected in reversed(versions[:3]):
        assert publisher.rollback(volume, "birds") == expected
        assert volume.active("birds") == expected
    with pytest.raises(UnknownVersion, match="nothing to go back to"):
        publisher.rollback(volume, "birds")


def test_going_back_passes_over_broken_versions(volume: Volume) -> None:
    """The newest valid version is taken; without any, the error says so and ACTIVE stays."""
    versions = volume.versions("birds")
    for broken in (versions[2], versions[1]):
        path = volume.directory("birds", broken) / "vectors.f32"
        path.chmod(0o644)
        path.write_bytes(b"")
    assert publisher.rollback(volume, "birds") == versions[0]
    publisher.activate(volume, "birds", versions[3])
    path = volume.directory("birds", versions[0]) / "items.sqlite"
    path.chmod(0o644)
    path.write_bytes(b"")
    with pytest.raises(IndexCorrupt):
        publisher.rollback(volume, "birds")
    assert volume.active("birds") == versions[3]


def test_only_sound_versions_that_exist_are_activated(volume: Volume) -> None:
    """An unknown version, an unknown collection and a broken version each have their error."""
    active, first = volume.active("birds"), volume.versions("birds")[0]
    with pytest.raises(UnknownVersion):
        publisher.activate(volume, "birds", "20200101T000000Z-00000000")
    with pytest.raises(UnknownCollection):
        publisher.rollback(volume, "fish")
    path = volume.directory("birds", first) / "annoy-0.ann"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-44])
    with pytest.raises(IndexCorrupt):
        publisher.activate(volume, "birds", first)
    assert volume.active("birds") == active
