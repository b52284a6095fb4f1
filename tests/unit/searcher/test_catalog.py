"""The catalogue swaps whole versions, and a bad version never replaces the old one."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.searcher.catalog import Catalog
from services.searcher.index.finder import Finder
from services.searcher.index.index import Index
from services.searcher.metrics import SearcherMetrics
from services.shared.contracts import Neighbors, Question
from services.shared.errors import IndexCorrupt, NoIndex
from services.shared.volume.manifest import VECTORS
from services.shared.volume.volume import Volume
from tests.support.volume import items, publish_version, unit_vectors


@pytest.fixture
def registry() -> CollectorRegistry:
    """Return the metrics' registry."""
    return CollectorRegistry()


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """Return a volume with a collection."""
    volume = Volume(tmp_path)
    publish_version(volume, "birds", unit_vectors(40), items(40, prefix="first"), number=1)
    return volume


@pytest.fixture
async def catalog(volume: Volume, registry: CollectorRegistry) -> Catalog:
    """Return a catalogue that has read the volume once."""
    catalog = Catalog(volume, SearcherMetrics(registry))
    await catalog.refresh()
    return catalog


def _ask(finder: Finder) -> Neighbors:
    (answer,) = finder.find([unit_vectors(40)[3]], [Question(collection="birds")])
    assert isinstance(answer, Neighbors)
    return answer


async def test_the_active_version_is_open(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry
) -> None:
    """A collection found on the volume is open, and an unknown one has a named error."""
    assert catalog.get("birds").index.manifest.version == volume.active("birds")
    assert b"simile_searcher_index_items{" in generate_latest(registry)
    with pytest.raises(NoIndex):
        catalog.get("fish")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": 2, "canaries": [1e999]}'])
async def test_a_manifest_that_can_not_be_read_stops_no_other_collection(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry, text: str
) -> None:
    """Deeply nested JSON, or an invalid number, is `index_corrupt`; the rest is served."""
    broken = publish_version(volume, "ants", unit_vectors(9), items(9))
    path = volume.directory("ants", broken.version) / "manifest.json"
    path.chmod(0o644)
    path.write_text(text)
    publish_version(volume, "fish", unit_vectors(9), items(9))
    await catalog.refresh()
    assert sorted(catalog.open) == ["birds", "fish"]
    refused = {"collection": "ants", "code": "index_corrupt"}
    assert registry.get_sample_value("simile_searcher_refused_versions_total", refused) == 1


async def test_a_defect_while_one_version_is_opened_stops_no_other_collection(
    catalog: Catalog, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any error the version is refused, and the collections after it are opened."""
    publish_version(volume, "ants", unit_vectors(9), items(9))
    publish_version(volume, "fish", unit_vectors(9), items(9))
    sound = Index.open

    def breaks(volume: Volume, collection: str, version: str) -> Index:
        if collection == "ants":
            raise ZeroDivisionError
        return sound(volume, collection, version)

    monkeypatch.setattr(Index, "open", breaks)
    await catalog.refresh()
    assert sorted(catalog.open) == ["birds", "fish"]


async def test_a_new_version_takes_over(catalog: Catalog, volume: Volume) -> None:
    """After ACTIVE changes, the new version answers; the old one serves those who hold it."""
    old = catalog.get("birds")
    manifest = publish_version(volume, "birds", unit_vectors(9), items(9, prefix="second"))
    await catalog.refresh()
    assert catalog.get("birds").index.manifest == manifest
    assert _ask(old).neighbors[0].label.startswith("first")


async def test_counters_are_there_before_their_first_event(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry
) -> None:
    """Counters start at 0 with the collection, since Prometheus sees no increase at a first 1."""
    swaps = ("simile_searcher_index_swaps_total", {"collection": "birds"})
    refused = {"collection": "birds", "code": "index_corrupt"}
    assert registry.get_sample_value(*swaps) == 0
    assert registry.get_sample_value("simile_searcher_refused_versions_total", refused) == 0
    for recall in ("expected", "found"):
        name = f"simile_searcher_live_recall_{recall}_total"
        assert registry.get_sample_value(name, {"collection": "birds"}) == 0
    publish_version(volume, "birds", unit_vectors(9), items(9, prefix="second"))
    await catalog.refresh()
    assert registry.get_sample_value(*swaps) == 1


async def test_a_rollback_is_followed(catalog: Catalog, volume: Volume) -> None:
    """Activating the old version again brings the old version back."""
    first = volume.active("birds")
    publish_version(volume, "birds", unit_vectors(9), items(9), number=2)
    await catalog.refresh()
    volume.activate("birds", first)
    await catalog.refresh()
    assert catalog.get("birds").index.manifest.version == first


@pytest.mark.parametrize("name", ["annoy-0.ann", "vectors.f32", "items.sqlite", "manifest.json"])
async def test_a_damaged_version_is_refused_and_the_old_one_answers(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry, name: str
) -> None:
    """The refusal is counted once by its code, and not tried again until ACTIVE changes."""
    old = catalog.get("birds")
    manifest = publish_version(volume, "birds", unit_vectors(9), items(9), number=2)
    file = volume.directory("birds", manifest.version) / name
    file.chmod(0o644)
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
    """A broken ACTIVE keeps the open version."""
    old = catalog.get("birds")
    (volume.root / "birds" / "ACTIVE").write_bytes(content)
    await catalog.refresh()
    assert catalog.get("birds") is old


async def test_a_removed_collection_is_closed(
    catalog: Catalog, volume: Volume, registry: CollectorRegistry
) -> None:
    """A collection without ACTIVE is closed, and removed from the metrics."""
    (volume.root / "birds" / "ACTIVE").unlink()
    await catalog.refresh()
    with pytest.raises(NoIndex):
        catalog.get("birds")
    assert b"simile_searcher_index_items{" not in generate_latest(registry)


async def test_swaps_under_queries_never_mix_two_versions(catalog: Catalog, volume: Volume) -> None:
    """While versions change under queries, every answer comes from the version that it names."""
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
        found = _ask(catalog.get("birds"))
        assert len(found.neighbors) == 10
        prefix = prefixes[found.index_version]
        assert all(neighbor.label.startswith(f"{prefix} ") for neighbor in found.neighbors)
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
    """After a rollback, a repaired version is tried again."""
    first = volume.active("birds")
    second = publish_version(volume, "birds", unit_vectors(9), items(9), number=2).version
    file = volume.directory("birds", second) / "annoy-0.ann"
    sound = file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(b"")
    await catalog.refresh()
    volume.activate("birds", first)
    await catalog.refresh()
    file.write_bytes(sound)
    volume.activate("birds", second)
    await catalog.refresh()
    assert catalog.get("birds").index.manifest.version == second


@pytest.mark.parametrize("method", ["iterdir", "read_text"])
async def test_a_volume_that_can_not_be_read_closes_nothing(
    catalog: Catalog, volume: Volume, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """While the volume can't be read, the open indexes answer; afterwards they are updated."""

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    second = publish_version(volume, "birds", unit_vectors(9), items(9), number=2).version
    with monkeypatch.context() as away:
        away.setattr(Path, method, stale)
        await catalog.refresh()
        assert catalog.get("birds").index.manifest.version != second
    await catalog.refresh()
    assert catalog.get("birds").index.manifest.version == second


async def _with_memory(volume: Volume, versions: float) -> Catalog:
    """Return a catalogue with memory for that many of the collections of these tests."""
    size = volume.manifest("birds", volume.active("birds")).bytes
    registry = CollectorRegistry()
    catalog = Catalog(volume, SearcherMetrics(registry), memory_bytes=int(versions * size))
    await catalog.refresh()
    return catalog


async def test_collections_beyond_the_memory_are_opened_on_request(volume: Volume) -> None:
    """The least recently used collection is closed, and all collections can be queried."""
    for name in ("cats", "dogs"):
        publish_version(volume, name, unit_vectors(40), items(40), number=2)
    catalog = await _with_memory(volume, 2.5)
    assert sorted(catalog.open) == ["birds", "cats"]
    assert (await catalog.opened("dogs")).index.manifest.collection == "dogs"
    assert sorted(catalog.open) == ["cats", "dogs"]
    await catalog.refresh()
    assert sorted(catalog.open) == ["cats", "dogs"]
    await catalog.opened("cats")
    assert (await catalog.opened("birds")).index.manifest.collection == "birds"
    assert sorted(catalog.open) == ["birds", "cats"]
    assert not catalog.empty


async def test_a_collection_larger_than_the_memory_is_opened_alone(volume: Volume) -> None:
    """A limit too small for a collection closes all others, and the collection answers."""
    catalog = await _with_memory(volume, 0.5)
    assert not catalog.open
    assert not catalog.empty
    await catalog.opened("birds")
    assert list(catalog.open) == ["birds"]


async def test_a_closed_collection_is_opened_in_its_newest_version(volume: Volume) -> None:
    """A version that became active while the collection was closed answers."""
    catalog = await _with_memory(volume, 0.5)
    newest = publish_version(volume, "birds", unit_vectors(9), items(9), number=2)
    assert (await catalog.opened("birds")).index.manifest == newest


async def test_an_open_version_is_held_until_it_is_released(
    catalog: Catalog, volume: Volume
) -> None:
    """A version can't be removed while a query may read it, and can be removed afterwards."""
    old = catalog.get("birds")
    version = old.index.manifest.version
    publish_version(volume, "birds", unit_vectors(9), items(9), number=2)
    await catalog.refresh()
    assert not volume.remove("birds", version)
    del old
    assert volume.remove("birds", version)


async def test_a_version_written_to_while_open_answers_no_more(
    catalog: Catalog, volume: Volume
) -> None:
    """Files written in place could give wrong answers, so the index is closed by name."""
    finder = catalog.get("birds")
    file = volume.directory("birds", finder.index.manifest.version) / "vectors.f32"
    file.chmod(0o644)
    with file.open("r+b") as content:
        content.write(b"\0" * 32)
    with pytest.raises(IndexCorrupt, match="written to"):
        _ask(finder)
    catalog.drop("birds", finder, IndexCorrupt("written to"))
    await catalog.refresh()
    with pytest.raises(NoIndex):
        catalog.get("birds")


@pytest.mark.parametrize("name", ["annoy-0.ann", "vectors.f32"])
async def test_a_mapped_file_cut_short_is_noticed_before_it_is_read(
    catalog: Catalog, volume: Volume, name: str
) -> None:
    """Reading beyond the end would kill the process, so the query fails by name."""
    finder = catalog.get("birds")
    file = volume.directory("birds", finder.index.manifest.version) / name
    file.chmod(0o644)
    os.truncate(file, 0)
    with pytest.raises(IndexCorrupt, match=name):
        _ask(finder)


async def test_a_file_put_in_the_place_of_an_open_one_changes_nothing(
    catalog: Catalog, volume: Volume
) -> None:
    """Mapped files stay unchanged; a searcher that opens the version again refuses the file."""
    finder = catalog.get("birds")
    file = volume.directory("birds", finder.index.manifest.version) / "vectors.f32"
    other = file.with_suffix(".new")
    other.write_bytes(b"\0" * file.stat().st_size)
    other.replace(file)
    assert _ask(finder).neighbors[0].distance == pytest.approx(0, abs=1e-3)
    with pytest.raises(IndexCorrupt, match="vectors"):
        Index.open(volume, "birds", finder.index.manifest.version)


async def test_a_closed_collection_whose_next_version_is_damaged_is_left_to_others(
    volume: Volume,
) -> None:
    """A collection that was closed to save memory is not known once its version is refused."""
    catalog = await _with_memory(volume, 0.5)
    assert catalog.knows("birds")
    assert not catalog.open
    damaged = publish_version(volume, "birds", unit_vectors(40), items(40), number=2).version
    vectors = volume.directory("birds", damaged) / VECTORS
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(NoIndex):
        await catalog.opened("birds")
    assert not catalog.knows("birds")
    assert catalog.empty
