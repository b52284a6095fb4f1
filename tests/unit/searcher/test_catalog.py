"""Following the volume: versions are swapped whole, a bad one never replaces the old one."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.searcher.catalog import Catalog
from services.searcher.metrics import SearcherMetrics
from services.shared.collection import Volume
from services.shared.errors import NoIndex
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def registry() -> CollectorRegistry:
    """The metrics' registry."""
    return CollectorRegistry()


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume with one collection."""
    volume = Volume(tmp_path)
    publish_version(volume, "birds", unit_vectors(40), items(40, prefix="first"), number=1)
    return volume


@pytest.fixture
async def catalog(volume: Volume, registry: CollectorRegistry) -> Catalog:
    """A catalogue that has looked at the volume once."""
    catalog = Catalog(volume, SearcherMetrics(registry))
    await catalog.refresh()
    return catalog


async def test_the_active_version_is_open(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry
) -> None:
    """A collection is opened as it is found; an unknown one has a named error."""
    assert catalog.get("birds").manifest.version == volume.active("birds")
    assert b"simile_searcher_index_items{" in generate_latest(registry)
    with pytest.raises(NoIndex):
        catalog.get("fish")


async def test_a_new_version_takes_over(catalog: Catalog, volume: Volume) -> None:
    """After ACTIVE changes the new version answers; the old one still serves who holds it."""
    old = catalog.get("birds")
    manifest = publish_version(volume, "birds", unit_vectors(9), items(9, prefix="second"))
    await catalog.refresh()
    assert catalog.get("birds").manifest == manifest
    assert old.neighbors(unit_vectors(40)[3], 1, None)[0].label.startswith("first")


async def test_a_rollback_is_followed(catalog: Catalog, volume: Volume) -> None:
    """Activating the old version again brings it back."""
    first = volume.active("birds")
    publish_version(volume, "birds", unit_vectors(9), items(9), number=2)
    await catalog.refresh()
    volume.activate("birds", first)
    await catalog.refresh()
    assert catalog.get("birds").manifest.version == first


@pytest.mark.parametrize("name", ["index.ann", "vectors.f32", "items.sqlite", "manifest.json"])
async def test_a_damaged_version_is_refused_and_the_old_one_answers(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry, name: str
) -> None:
    """The refusal is counted once by its code, and asked about no more until ACTIVE changes."""
    old = catalog.get("birds")
    manifest = publish_version(volume, "birds", unit_vectors(9), items(9), number=2)
    file = volume.directory("birds", manifest.version) / name
    file.write_bytes(file.read_bytes()[:-8])
    await catalog.refresh()
    await catalog.refresh()
    assert catalog.get("birds") is old
    labels = {"collection": "birds", "code": "index_corrupt"}
    assert registry.get_sample_value("simile_searcher_refused_versions_total", labels) == 1


@pytest.mark.parametrize("content", [b"20200101T000000Z-00000000\n", b"nonsense", b"", b"\xff\xfe"])
async def test_an_active_file_that_points_nowhere_keeps_the_old_version(
    catalog: Catalog, volume: Volume, content: bytes
) -> None:
    """A broken ACTIVE stops nobody."""
    old = catalog.get("birds")
    (volume.root / "birds" / "ACTIVE").write_bytes(content)
    await catalog.refresh()
    assert catalog.get("birds") is old


async def test_a_removed_collection_is_closed(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry
) -> None:
    """Without ACTIVE a collection is gone, from the metrics too."""
    (volume.root / "birds" / "ACTIVE").unlink()
    await catalog.refresh()
    with pytest.raises(NoIndex):
        catalog.get("birds")
    assert b"simile_searcher_index_items{" not in generate_latest(registry)


async def test_swaps_under_queries_never_mix_two_versions(catalog: Catalog, volume: Volume) -> None:
    """Threads search while versions change: every answer is of the version it names."""
    versions = {
        number: publish_version(
            volume, "birds", unit_vectors(50, seed=number), items(50, prefix=f"v{number}"),
            number=number,
        ).version
        for number in (10, 11)
    }  # fmt: skip
    prefixes = {version: f"v{number}" for number, version in versions.items()}
    await catalog.refresh()
    done, answers = asyncio.Event(), 0

    def ask() -> int:
        index = catalog.get("birds")
        found = index.neighbors(unit_vectors(1, seed=3)[0], 10, None)
        assert len(found) == 10
        prefix = prefixes[index.manifest.version]
        assert all(neighbor.label.startswith(f"{prefix} ") for neighbor in found)
        return 1

    async def query() -> None:
        nonlocal answers
        while not done.is_set():
            answers += await asyncio.to_thread(ask)

    queries = [asyncio.create_task(query()) for _ in range(4)]
    for swap in range(40):
        volume.activate("birds", versions[10 + swap % 2])
        await catalog.refresh()
    done.set()
    await asyncio.gather(*queries)
    assert answers > 40


async def test_a_refused_version_is_tried_again_when_it_is_activated_again(
    catalog: Catalog, volume: Volume
) -> None:
    """After a rollback a repaired version gets its second chance."""
    first = volume.active("birds")
    second = publish_version(volume, "birds", unit_vectors(9), items(9), number=2).version
    file = volume.directory("birds", second) / "index.ann"
    sound = file.read_bytes()
    file.write_bytes(b"")
    await catalog.refresh()
    volume.activate("birds", first)
    await catalog.refresh()
    file.write_bytes(sound)
    volume.activate("birds", second)
    await catalog.refresh()
    assert catalog.get("birds").manifest.version == second


@pytest.mark.parametrize("method", ["iterdir", "read_text"])
async def test_a_volume_that_can_not_be_read_closes_nothing(
    catalog: Catalog, volume: Volume, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """While the shared volume is away the open indexes answer; when it is back it is followed."""

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    second = publish_version(volume, "birds", unit_vectors(9), items(9), number=2).version
    with monkeypatch.context() as away:
        away.setattr(Path, method, stale)
        await catalog.refresh()
        assert catalog.get("birds").manifest.version != second
    await catalog.refresh()
    assert catalog.get("birds").manifest.version == second
