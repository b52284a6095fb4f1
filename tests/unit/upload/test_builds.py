"""Upload shows the progress of a build in this process or another."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from services.shared.errors import IndexBuilding, UnknownCollection
from services.shared.volume.build_progress import BUILDING, PROGRESS, BuildProgress
from services.shared.volume.volume import Volume
from services.upload.collections import CollectionReader
from services.upload.stored_images import StoredImages
from tests.support.pictures import plain_jpeg
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import Api, matches, refused

PICTURE = plain_jpeg((40, 80, 90))


@pytest.fixture(autouse=True)
def _looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check the active version for each request."""
    quick = partial(CollectionReader, look_again_seconds=0.0)
    monkeypatch.setattr("services.upload.app.CollectionReader", quick)


def _build(volume: Volume, collection: str, **changed: Any) -> Path:
    """Write the progress of a build as another process does."""
    fields = {
        "stage": "embedding", "done": 812, "total": 4210, "failed": 3, "eta_seconds": 20.4,
        "build": "b", "beat": 1, "written_unix_ms": time.time_ns() // 1_000_000,
    }  # fmt: skip
    building = volume.home(collection) / BUILDING
    BuildProgress(**{**fields, **changed}).write(building)
    return building / PROGRESS


async def test_a_first_build_is_listed_with_its_progress(api: Api) -> None:
    """A collection without a version is listed with the progress, and without facts of an index."""
    _build(api.volume, "pictures")
    answer = await api.get("/v1/collections")
    matches("Collections", answer)
    birds, pictures = answer.json["collections"]
    assert (birds["name"], birds["building"]) == ("birds", None)
    assert pictures["building"] == {
        "stage": "embedding", "done": 812, "total": 4210, "failed": 3, "eta_seconds": 20.4,
    }  # fmt: skip
    assert (pictures["count"], pictures["index_version"]) == (0, None)
    one = await api.get("/v1/collections/pictures")
    matches("Collection", one)
    assert one.json == pictures
    status = await api.get("/v1/status")
    matches("Status", status)
    assert pictures in status.json["collections"]


async def test_a_rebuild_is_shown_beside_the_active_version(api: Api) -> None:
    """The version before continues to answer, and the listing shows both."""
    _build(api.volume, "birds")
    listed = (await api.get("/v1/collections/birds")).json
    assert listed["index_version"] == api.volume.active("birds")
    assert listed["building"]["done"] == 812
    assert (await api.search(PICTURE)).status == 200


@pytest.mark.parametrize(("eta", "wait"), [(20.4, "21"), (0.2, "1"), (900.0, "30"), (None, "5")])
async def test_a_search_during_a_first_build_says_how_far_it_is(
    api: Api, eta: float | None, wait: str
) -> None:
    """The answer is 503 with a code, the progress, and a Retry-After from the time left."""
    _build(api.volume, "pictures", eta_seconds=eta)
    answer = await api.search(PICTURE, "/v1/search?collection=pictures")
    refused(answer, 503, "index_building")
    assert "812 of 4,210 images" in answer.json["detail"]
    assert answer.headers["Retry-After"] == wait


async def test_the_progress_ends_with_the_build(api: Api) -> None:
    """A build that ended without an index is not shown any more."""
    progress = _build(api.volume, "pictures")
    refused(await api.search(PICTURE, "/v1/search?collection=pictures"), 503, "index_building")
    progress.unlink()
    refused(await api.search(PICTURE, "/v1/search?collection=pictures"), 503, "no_index")


def _collections(volume: Volume, default: str | None, *hidden: str) -> CollectionReader:
    return CollectionReader(
        volume,
        default_collection=default,
        images=StoredImages(None, thumbnail_pixels=32, thumbnail_cache_bytes=0),
        hidden=frozenset(hidden),
        look_again_seconds=0.0,
    )


async def test_the_default_collection_goes_before_the_only_one(tmp_path: Path) -> None:
    """While the default collection is built, a query without a name gets no other collection."""
    volume = Volume(tmp_path)
    publish_version(volume, "sample", unit_vectors(3), items(3))
    with_default = _collections(volume, "pictures")
    assert (await with_default.open(None)).manifest.collection == "sample"
    _build(volume, "pictures")
    with pytest.raises(IndexBuilding, match="'pictures'"):
        await with_default.open(None)
    listed, default = await with_default.listing()
    assert ([one.name for one in listed], default) == (["pictures", "sample"], "pictures")


async def test_a_query_without_a_name_means_the_only_build(tmp_path: Path) -> None:
    """Without other collections, the answer reports the progress of the build."""
    volume = Volume(tmp_path)
    _build(volume, "pictures")
    with pytest.raises(IndexBuilding):
        await _collections(volume, None).open(None)


async def test_a_hidden_collection_does_not_exist_for_callers(tmp_path: Path) -> None:
    """A hidden collection is neither listed nor searched, and no default of a query."""
    volume = Volume(tmp_path)
    publish_version(volume, "sample", unit_vectors(3), items(3))
    publish_version(volume, "pictures", unit_vectors(3), items(3))
    hiding = _collections(volume, None, "sample")
    listed, default = await hiding.listing()
    assert ([one.name for one in listed], default) == (["pictures"], "pictures")
    assert (await hiding.open(None)).manifest.collection == "pictures"
    with pytest.raises(UnknownCollection):
        await hiding.open("sample")
    _build(volume, "sample")
    with pytest.raises(UnknownCollection):
        await hiding.listed("sample")
