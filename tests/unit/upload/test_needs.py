"""Queries are admitted by need: slow embedders do not affect queries without an embedder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.shared.lifecycle import cancel
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import Api, refused

KNOWN = plain_jpeg((7, 70, 7))
UNKNOWN = plain_jpeg((70, 7, 7))


@pytest.fixture
def upload_settings() -> UploadSettings:
    """Return settings with a single query by image at a time."""
    return UploadSettings(port=0, max_in_flight=1)


@pytest.fixture
async def full(api: Api) -> AsyncIterator[Api]:
    """Return the service with its slot for images taken, and a cached vector of one image."""
    assert (await api.search(KNOWN)).status == 200
    api.embedder.ignoring.add(UNKNOWN)
    asking = asyncio.create_task(api.search(UNKNOWN))
    registry = api.telemetry.registry
    while (registry.get_sample_value("simile_upload_in_flight_queries") or 0) < 1:
        await asyncio.sleep(0.005)
    yield api
    await cancel(asking)


async def test_more_like_an_item_needs_no_embedder(full: Api) -> None:
    """Queries by item are answered while queries by image are refused."""
    for item in full.items:
        assert (await full.get(f"/v1/items/birds/{item.item_id}/similar")).status == 200
    refused(await full.search(plain_jpeg((1, 1, 1))), 503, "overloaded")


async def test_a_cached_image_needs_no_embedder(full: Api) -> None:
    """An image with a cached vector is answered, with further pages; other images are refused."""
    for _ in range(5):
        answer = await full.search(KNOWN, "/v1/search?k=3")
        assert answer.status == 200
        page = await full.search(KNOWN, f"/v1/search?k=3&cursor={answer.json['next_cursor']}")
        assert page.status == 200
        refused(await full.search(UNKNOWN), 503, "overloaded")
        refused(await full.search(KNOWN, "/v1/embed"), 503, "overloaded")


async def test_checks_for_cached_images_are_limited(full: Api) -> None:
    """In a flood of unknown images some are refused from the head, without reading the body."""
    head = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n"
    host, port = full.url.removeprefix("http://").split(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(150)]
    for _, writer in connections:
        writer.write(head)
    waiting = [asyncio.create_task(reader.readline()) for reader, _ in connections]
    done, _ = await asyncio.wait(waiting, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert all(b" 503 " in line.result() for line in done)
    for _, writer in connections:
        writer.close()
    await asyncio.gather(*waiting, return_exceptions=True)
