"""A collection is deleted while upload and searcher serve it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from services.searcher import service as searcher
from services.searcher.admin.removal import delete_collection
from services.searcher.settings import SearcherSettings
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.upload.collections import CollectionReader
from services.upload.settings import UploadSettings
from tests.support.volume import items, publish_version, unit_vectors
from tests.unit.upload.conftest import COUNT, Answer, Api, running_api


@pytest.fixture
def searching() -> Telemetry:
    """Return the telemetry of the searcher."""
    return Telemetry()


@pytest.fixture
async def system(
    tmp_path: Path, upload_settings: UploadSettings, searching: Telemetry
) -> AsyncIterator[Api]:
    """Run upload and a searcher over `birds` and `fish`."""
    async with running_api(tmp_path, upload_settings, fakes_searcher=False) as api:
        publish_version(api.volume, "fish", unit_vectors(COUNT), items(COUNT))
        shared = SharedSettings(root=api.volume.root, drain_timeout_seconds=5)
        stop = asyncio.Event()
        settings = SearcherSettings(poll_seconds=0.1)
        work = searcher.run(settings, shared, api.broker, stop=stop, telemetry=searching)
        running = asyncio.create_task(work)
        while searching.health.not_ready() or "searcher" not in searching.health.ready_checks:
            await asyncio.sleep(0.01)
        yield api
        stop.set()
        await running


async def _until_gone(api: Api, picture: bytes) -> Answer:
    """Return the first answer of another status than 200."""
    async with asyncio.timeout(20):
        while (answer := await api.search(picture, "/v1/search?collection=birds")).status == 200:
            await asyncio.sleep(0.02)
    return answer


async def test_a_deleted_collection_is_unknown_to_a_running_system(
    system: Api, picture: bytes, searching: Telemetry
) -> None:
    """Queries get 404, the others go on; the searcher closes the index, and its name is free."""
    assert (await system.search(picture, "/v1/search?collection=birds")).status == 200
    delete_collection(system.volume, "birds")
    answer = await _until_gone(system, picture)
    assert (answer.status, answer.json["code"]) == (404, "unknown_collection")
    assert (await system.search(picture, "/v1/search?collection=fish")).status == 200
    listed = await system.get("/v1/collections")
    assert [one["name"] for one in listed.json["collections"]] == ["fish"]
    path = f"/v1/items/birds/{system.items[0].item_id}"
    for gone in (path, f"{path}/similar", f"{path}/image", "/v1/collections/birds/facets"):
        assert (await system.get(gone)).status == 404
    labels = {"collection": "birds"}
    async with asyncio.timeout(20):
        while searching.registry.get_sample_value("simile_searcher_index_items", labels):
            await asyncio.sleep(0.02)
    again = publish_version(system.volume, "birds", unit_vectors(3), items(3), number=1)
    async with asyncio.timeout(20):
        while True:
            answer = await system.search(picture, "/v1/search?collection=birds")
            if answer.status == 200:
                break
            await asyncio.sleep(0.02)
    assert answer.json["index_version"] == again.version
    assert not system.running.done()


@pytest.fixture
def _looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't check the active version again."""
    slow = partial(CollectionReader, look_again_seconds=1000.0)
    monkeypatch.setattr("services.upload.app.CollectionReader", slow)


@pytest.mark.usefixtures("_looks_once")
async def test_reads_of_a_collection_deleted_a_moment_ago_are_404(api: Api) -> None:
    """Upload still has the collection open, but its files are gone."""
    assert (await api.get("/v1/collections/birds")).status == 200
    item = f"/v1/items/birds/{api.items[0].item_id}"
    assert (await api.get(item)).status == 200
    delete_collection(api.volume, "birds")
    for path in (f"{item}/similar", "/v1/collections/birds/facets", "/v1/items/birds?vectors=true"):
        answer = await api.get(path)
        assert (answer.status, answer.json["code"]) == (404, "unknown_collection"), path


async def test_upload_closes_what_was_deleted(api: Api) -> None:
    """The list of collections, or the canary, frees the disk without a query of the collection."""
    publish_version(api.volume, "fish", unit_vectors(COUNT), items(COUNT))
    assert (await api.get("/v1/collections/fish")).status == 200
    delete_collection(api.volume, "fish")
    assert _open_files(".deleted-fish-")
    assert (await api.get("/v1/collections")).status == 200
    gc.collect()
    assert not _open_files(".deleted-fish-")


def _open_files(name: str) -> list[str]:
    """Return the files of this process whose path contains a name."""
    links = []
    for handle in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(handle.readlink()))
    return [link for link in links if name in link]
