"""Versions are copied from a shared volume to a searcher's own disk."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from pathlib import Path

import pytest

from services.searcher.admin import copying, versions
from services.searcher.index.index import Index
from services.shared.errors import BuildFailed, IndexCorrupt
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def shared(tmp_path: Path) -> Volume:
    """Return the volume that builds write, with a collection."""
    volume = Volume(tmp_path / "shared")
    publish_version(volume, "birds", unit_vectors(20), items(20))
    return volume


@pytest.fixture
def own(tmp_path: Path) -> Volume:
    """Return an empty disk."""
    return Volume(tmp_path / "own")


def test_a_copy_answers_like_the_original(shared: Volume, own: Volume) -> None:
    """The active version is copied, verified and activated; a second copy has nothing to do."""
    copied = copying.copy(shared, own, "birds")
    assert copied is not None
    assert copied.version == own.active("birds") == shared.active("birds")
    versions.verify(own, "birds", copied.version)
    Index.open(own, "birds", copied.version)
    assert copying.copy(shared, own, "birds") is None


def test_a_newer_version_follows_and_the_older_copy_goes(shared: Volume, own: Volume) -> None:
    """The copier activates the next version, and removes the older copy when no longer used."""
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
    """A version that was copied before is activated again without a copy."""
    copying.copy(shared, own, "birds")
    older = shared.active("birds")
    publish_version(shared, "birds", unit_vectors(30), items(30), number=1)
    copying.copy(shared, own, "birds")
    shared.activate("birds", older)
    assert copying.copy(shared, own, "birds") is None
    assert own.active("birds") == older


def test_a_damaged_original_is_never_active(shared: Volume, own: Volume) -> None:
    """A copy that does not verify is refused, and the active version stays."""
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
    """The error names the path that can't be written."""
    (tmp_path / "own").write_text("a file, no folder")
    with pytest.raises(BuildFailed, match="own"):
        copying.copy(shared, Volume(tmp_path / "own"), "birds")


async def test_following_goes_on_after_a_failure(shared: Volume, own: Volume) -> None:
    """A collection that can't be read does not keep others from being copied, now or later."""
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


async def test_the_first_round_leaves_a_mark(shared: Volume, own: Volume) -> None:
    """The mark follows the first try of all collections, and starts the searcher in a cluster."""
    stop, mark = asyncio.Event(), own.root / copying.FIRST_ROUND
    publish_version(shared, "ants", unit_vectors(20), items(20))
    following = asyncio.create_task(copying.follow(shared, own, every_seconds=60, stop=stop))
    async with asyncio.timeout(30):
        while not mark.exists():
            assert not stop.is_set()
            await asyncio.sleep(0)
    assert own.collections() == ["ants", "birds"]
    stop.set()
    await following


async def test_a_volume_that_can_not_be_read_is_tried_again(
    shared: Volume, own: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copier continues, and writes no mark as long as the volume can't be read."""
    stop, tries, real = asyncio.Event(), list[int](), Volume.collections

    def stale(volume: Volume) -> list[str]:
        tries.append(1)
        if len(tries) < 3:
            assert not (own.root / copying.FIRST_ROUND).exists()
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(volume)

    monkeypatch.setattr(Volume, "collections", stale)
    following = asyncio.create_task(copying.follow(shared, own, every_seconds=0.01, stop=stop))
    async with asyncio.timeout(30):
        while not (own.root / copying.FIRST_ROUND).exists():
            await asyncio.sleep(0)
    stop.set()
    await following


async def test_a_signal_does_not_wait_for_a_copy(
    shared: Volume, own: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copying a large index takes minutes; the next attempt removes a partial copy."""
    stop, begun, let_go = asyncio.Event(), threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        begun.set()
        let_go.wait(60)

    monkeypatch.setattr(copying, "copy", slow)
    following = asyncio.create_task(copying.follow(shared, own, every_seconds=60, stop=stop))
    async with asyncio.timeout(30):
        await asyncio.to_thread(begun.wait)
        stop.set()
        await following
    let_go.set()


def _age(volume: Volume) -> None:
    home, then = volume.home("birds"), time.time() - 3600
    for path in (home / "ACTIVE", *(home / "versions").iterdir()):
        os.utime(path, (then, then))
