"""Upload describes a collection, and holds a lease on the version that it reads."""

from __future__ import annotations

import asyncio
import gc
from functools import partial

import pytest
import structlog

from services.shared.volume.items import ITEMS
from services.upload.collections import CollectionReader
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Api, matches


async def test_facets_count_labels_and_attributes(api: Api) -> None:
    """Facets list the values for filters, most frequent first, with their numbers of items."""
    answer = await api.get("/v1/collections/birds/facets")
    matches("Facets", answer)
    assert answer.json["index_version"] == api.volume.active("birds")
    assert answer.json["labels"] == [
        {"value": "image even", "count": 6},
        {"value": "image odd", "count": 6},
    ]
    numbers = answer.json["attributes"]["number"]
    assert sorted(int(facet["value"]) for facet in numbers) == list(range(COUNT))
    assert {facet["count"] for facet in numbers} == {1}


async def test_facets_hold_200_values_at_most(api: Api) -> None:
    """An attribute with many different values does not make an endless answer."""
    publish_version(api.volume, "moths", unit_vectors(300), items(300))
    answer = await api.get("/v1/collections/moths/facets")
    matches("Facets", answer)
    assert len(answer.json["attributes"]["number"]) == 200
    assert answer.json["attribute_values"] == {"number": 300}
    assert answer.json["label_values"] == 2


@pytest.fixture
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the active version for each request."""
    quick = partial(CollectionReader, look_again_seconds=0.0)
    monkeypatch.setattr("services.upload.app.CollectionReader", quick)


@pytest.mark.usefixtures("_looks_each_time")
async def test_facets_are_counted_once_a_version(api: Api) -> None:
    """Later answers need no file, and a new version is counted again."""
    path = "/v1/collections/birds/facets"
    first = await asyncio.gather(api.get(path), api.get(path))
    version = api.volume.active("birds")
    (api.volume.directory("birds", version) / ITEMS).unlink()
    again = await api.get(path)
    assert [answer.json for answer in first] == [again.json] * 2
    publish_version(api.volume, "birds", unit_vectors(3), items(3), number=1)
    renewed = await api.get(path)
    assert renewed.json["index_version"] == api.volume.active("birds")
    assert sum(facet["count"] for facet in renewed.json["labels"]) == 3


@pytest.mark.usefixtures("_looks_each_time")
async def test_a_version_being_read_is_not_removed(api: Api) -> None:
    """Upload holds the version that it reads, and releases it after opening the next."""
    assert (await api.get("/v1/collections/birds")).status == 200
    old = api.volume.active("birds")
    publish_version(api.volume, "birds", unit_vectors(3), items(3), number=1)
    assert not api.volume.remove("birds", old)
    renewed = await api.get("/v1/collections/birds")
    assert renewed.json["index_version"] == api.volume.active("birds")
    gc.collect()
    assert api.volume.remove("birds", old)


@pytest.mark.usefixtures("_looks_each_time")
@pytest.mark.parametrize("whole", [True, False], ids=["folder", "ACTIVE"])
async def test_a_removed_collection_is_not_held(api: Api, *, whole: bool) -> None:
    """After the removal, upload answers with an error and releases the version."""
    assert (await api.get("/v1/collections/birds")).status == 200
    version, home = api.volume.active("birds"), api.volume.home("birds")
    if whole:
        home.rename(home.with_name("Removed"))
    else:
        (home / "ACTIVE").unlink()
    assert (await api.get("/v1/collections/birds")).status == (404 if whole else 503)
    if whole:
        home.with_name("Removed").rename(home)
    gc.collect()
    assert api.volume.remove("birds", version)


@pytest.mark.usefixtures("_looks_each_time")
@pytest.mark.parametrize("file", ["vectors.f32", "items.sqlite", "manifest.json"])
async def test_a_damaged_version_is_refused_and_the_old_one_goes_on(api: Api, file: str) -> None:
    """The refusal is logged once, and ends with the next valid version, as in searchers."""
    assert (await api.get("/v1/collections/birds")).status == 200
    old = api.volume.active("birds")
    broken = publish_version(api.volume, "birds", unit_vectors(3), items(3), number=1).version
    damaged = api.volume.directory("birds", broken) / file
    damaged.chmod(0o600)
    damaged.write_bytes(b"no such thing")
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            answer = await api.get("/v1/collections/birds")
            assert answer.json["index_version"] == old
        similar = await api.get(f"/v1/items/birds/{api.items[0].item_id}/similar")
    assert similar.status == 200
    refused = [line for line in lines if line["action"] == "index_corrupt"]
    assert [line["refused_version"] for line in refused] == [broken]
    publish_version(api.volume, "birds", unit_vectors(3), items(3), number=2)
    renewed = await api.get("/v1/collections/birds")
    assert renewed.json["index_version"] == api.volume.active("birds")


async def test_a_collection_says_how_it_is_searched(api: Api) -> None:
    """The description holds the method, the target recall, and the measured recall."""
    answer = await api.get("/v1/collections")
    matches("Collections", answer)
    manifest = api.volume.manifest("birds", api.volume.active("birds"))
    (listed,) = answer.json["collections"]
    assert listed["method"] == manifest.plan.method
    assert (listed["recall"], listed["recall_target"]) == (manifest.recall, manifest.recall_target)
    assert answer.json["limits"]["max_batch_images"] == 16
