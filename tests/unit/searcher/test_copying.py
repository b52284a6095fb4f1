"""Versions copied from a shared volume to a searcher's own disk."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from services.searcher import copying, publisher
from services.searcher.index import Index
from services.shared.collection import Volume
from services.shared.errors import BuildFailed, IndexCorrupt
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def shared(tmp_path: Path) -> Volume:
    """The volume that builds write, with one collection."""
    volume = Volume(tmp_path / "shared")
    publish_version(volume, "birds", unit_vectors(20), items(20))
    return volume


@pytest.fixture
def own(tmp_path: Path) -> Volume:
    """An empty disk."""
    return Volume(tmp_path / "own")


def test_a_copy_answers_like_the_original(shared: Volume, own: Volume) -> None:
    """What is active is copied whole, verified and active; then there is nothing left to do."""
    copied = copying.copy(shared, own, "birds")
    assert copied is not None
    assert copied.version == own.active("birds") == shared.active("birds")
    publisher.verify(own, "birds", copied.version)
    Index.open(own, "birds", copied.version)
    assert copying.copy(shared, own, "birds") is None


def test_a_newer_version_follows_and_the_older_copy_goes(shared: Volume, own: Volume) -> None:
    """Searchers change over to the next version; the last one goes once it is long out of use."""
    first = copying.copy(shared, own, "birds")
    publish_version(shared, "birds", unit_vectors(30), items(30), number=1)
    second = copying.copy(shared, own, "birds")
    assert first is not None
    assert second is not None
    assert own.versions("birds") == sorted([first.version, second.version])
    lease = own.hold("birds", first.version)
    _age(own)
    copying.copy(shared, own, "birds")
    assert first.version in own.versions("birds")
    del lease
    copying.copy(shared, own, "birds")
    assert own.versions("birds") == [second.version]


def test_a_rollback_is_followed(shared: Volume, own: Volume) -> None:
    """A version that is here already is activated again without being copied again."""
    copying.copy(shared, own, "birds")
    older = shared.active("birds")
    publish_version(shared, "birds", unit_vectors(30), items(30), number=1)
    copying.copy(shared, own, "birds")
    shared.activate("birds", older)
    assert copying.copy(shared, own, "birds") is None
    assert own.active("birds") == older


def test_a_damaged_original_is_never_active(shared: Volume, own: Volume) -> None:
    """A copy that does not verify is refused, and what was active here stays so."""
    copying.copy(shared, own, "birds")
    before = own.active("birds")
    newer = publish_version(shared, "birds", unit_vectors(30), items(30), number=1)
    vectors = shared.directory("birds", newer.version) / "vectors.f32"
    vectors.chmod(0o644)
    vectors.write_bytes(bytes(vectors.stat().st_size))
    with pytest.raises(IndexCorrupt):
        copying.copy(shared, own, "birds")
    assert own.active("birds") == before


def test_a_disk_that_takes_nothing_is_named(shared: Volume, tmp_path: Path) -> None:
    """What can't be written ends in an error that says where."""
    (tmp_path / "own").write_text("a file, no folder")
    with pytest.raises(BuildFailed, match="own"):
        copying.copy(shared, Volume(tmp_path / "own"), "birds")


async def test_following_goes_on_after_a_failure(shared: Volume, own: Volume) -> None:
    """One collection that can't be read keeps no other from being copied, nor the next look."""
    publish_version(shared, "ants", unit_vectors(20), items(20))
    (shared.home("ants") / "ACTIVE").write_text("nonsense\n")
    stop = asyncio.Event()
    following = asyncio.create_task(copying.follow(shared, own, every_seconds=0.01, stop=stop))
    async with asyncio.timeout(30):
        while own.collections() != ["birds"]:
            await asyncio.sleep(0)
        newer = publish_version(shared, "birds", unit_vectors(30), items(30), number=1)
        while own.active("birds") != newer.version:
            await asyncio.sleep(0)
        stop.set()
        await following


def _age(volume: Volume) -> None:
    home, then = volume.home("birds"), time.time() - 3600
    for path in (home / "ACTIVE", *(home / "versions").iterdir()):
        os.utime(path, (then, then))
