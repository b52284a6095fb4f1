"""Both clients of simile_client, against a running upload service with stand-ins behind it."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import simile_client
from services.shared.contracts import Box, Failure
from services.shared.contracts import Filter as AskedFilter
from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from simile_client import ApiError, AsyncSimile, BatchFailed, Filter, Simile, problems
from tests.support.pictures import plain_jpeg
from tests.support.streams import Unseekable
from tests.unit.upload.conftest import COUNT, Api

PICTURES = [plain_jpeg((9, 9, 70 * number)) for number in range(3)]
KEY, KEY_LINE = new_key("shop", [Scope.READ])


@dataclass(frozen=True, slots=True)
class Client:
    """Calls the methods of the blocking or of the asynchronous client by name."""

    url: str
    blocking: bool

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return the answer of one method; of an iterator, all that it yields."""
        own = {name: options.pop(name) for name in ("api_key", "retries") if name in options}
        if self.blocking:
            return await asyncio.to_thread(self._blocking, own, method, arguments, options)
        async with AsyncSimile(self.url, deadline_seconds=2, **own) as simile:
            answer = getattr(simile, method)(*arguments, **options)
            if isinstance(answer, AsyncIterator):
                return [page async for page in answer]
            return await answer

    def _blocking(self, own: Any, method: str, arguments: Any, options: Any) -> Any:
        with Simile(self.url, deadline_seconds=2, **own) as simile:
            answer = getattr(simile, method)(*arguments, **options)
            return list(answer) if isinstance(answer, Iterator) else answer


@pytest.fixture(params=["blocking", "asynchronous"])
def client(api: Api, request: pytest.FixtureRequest) -> Client:
    """Each client in turn."""
    return Client(api.url, blocking=request.param == "blocking")


async def test_every_option_reaches_the_searcher(api: Api, client: Client) -> None:
    """The options have the values that the API's parameters have."""
    answer = await client.call(
        "search", PICTURES[0], collection="birds", k=3, max_distance=0.25, collapse=0.125,
        filter=Filter(label=["crow", "owl"]), box=(0, 0, 0.5, 1),
    )  # fmt: skip
    assert [len(answer.neighbors), answer.collection] == [3, "birds"]
    assert answer.neighbors[0].item_id == api.items[0].item_id
    asked = api.searcher.asked
    assert (asked.k, asked.max_distance, asked.collapse) == (3, 0.25, 0.125)
    assert asked.filter == AskedFilter(("crow", "owl"))
    assert api.searcher.slips[-1].box == Box(0, 0, 0.5, 1)
    assert api.embedder.embedded == PICTURES[:1]


async def test_a_vector_finds_its_neighbours(api: Api, client: Client) -> None:
    """The vector of an image, with options, searches without the image."""
    vector = (await client.call("embed", PICTURES[0])).vector
    found = await client.call(
        "search_vector", vector, collection="birds", k=4, filter=Filter(label="crow")
    )
    assert len(found.neighbors) == 4
    assert api.searcher.asked.filter == AskedFilter(("crow",))
    assert len(api.embedder.embedded) == 1


@pytest.mark.parametrize(
    "kind",
    ["path", "text", "bytes", "file", "rest of a file", "stream", "pipe", "path of a pipe"],
)
async def test_an_image_is_whatever_holds_its_bytes(
    api: Api, client: Client, tmp_path: Path, kind: str
) -> None:
    """The bytes arrive unchanged, of an open file those from its position on."""
    path = tmp_path / "ü \udc80.jpg"
    path.write_bytes(PICTURES[1])
    rest = io.BytesIO(b"head" + PICTURES[1])
    rest.seek(4)
    reading, writing = os.pipe()
    os.write(writing, PICTURES[1])
    os.close(writing)
    with path.open("rb") as file, os.fdopen(reading, "rb") as pipe:
        images = {
            "path": path,
            "text": str(path),
            "bytes": PICTURES[1],
            "file": file,
            "rest of a file": rest,
            "stream": Unseekable(PICTURES[1]),
            "pipe": pipe,
            "path of a pipe": f"/dev/fd/{reading}",
        }
        await client.call("search", images[kind], filter={"label": "crow"})
    assert api.embedder.embedded == [PICTURES[1]]
    assert api.searcher.asked.filter == AskedFilter(("crow",))


@pytest.mark.parametrize("kind", ["bytes", "stream"])
async def test_pages_follow_each_other_until_the_last(api: Api, client: Client, kind: str) -> None:
    """Every item comes once, in the order of the pages; the image is sent with each page."""
    image = PICTURES[0] if kind == "bytes" else Unseekable(PICTURES[0])
    pages = await client.call("search_pages", image, k=5)
    ids = [neighbor.item_id for page in pages for neighbor in page.neighbors]
    assert ids == [item.item_id for item in api.items]
    assert [len(page.neighbors) for page in pages] == [5, 5, 2]


async def test_a_batch_has_a_result_for_each_image(api: Api, client: Client) -> None:
    """In their order, with the problem of the image that can't be used."""
    answer = await client.call("search_batch", [*PICTURES, b"no image"], k=2)
    assert [type(result).__name__ for result in answer.results] == 3 * ["BatchAnswered"] + [
        "BatchFailed"
    ]
    failed = answer.results[3]
    assert isinstance(failed, BatchFailed)
    assert failed.problem.code == "unsupported_format"
    assert sorted(api.embedder.embedded) == sorted(PICTURES)


async def test_items_are_found_shown_and_searched_by(api: Api, client: Client) -> None:
    """Facts, files, thumbnails and neighbours of an item, with all pages."""
    item_id = api.items[4].item_id
    item = await client.call("item", "birds", item_id)
    assert (item.item_id, item.path) == (item_id, api.items[4].path)
    stored = (api.images / api.items[4].path).read_bytes()
    assert await client.call("image", "birds", item_id) == stored
    assert (await client.call("thumbnail", "birds", item_id)).startswith(b"\xff\xd8")
    large = await client.call("thumbnail", "birds", item_id, size=640)
    assert large.startswith(b"\xff\xd8")
    assert await client.call("preview", PICTURES[0]) == PICTURES[0]
    found = await client.call("similar", "birds", item_id, k=3, filter=Filter(label="crow"))
    assert len(found.neighbors) == 3
    pages = await client.call("similar_pages", "birds", item_id, k=10)
    assert sum(len(page.neighbors) for page in pages) == COUNT - 1


async def test_the_items_of_a_collection_are_listed(api: Api, client: Client) -> None:
    """Page by page, those that pass the filter, with their vectors where asked."""
    pages = await client.call("items_pages", "birds", limit=5)
    ids = [item.item_id for page in pages for item in page.items]
    assert sorted(ids) == sorted(item.item_id for item in api.items)
    label = api.items[0].label
    listed = await client.call("items", "birds", filter={"label": label}, vectors=True)
    assert {item.label for item in listed.items} == {label}
    assert all(item.vector for item in listed.items)


async def test_collections_facets_samples_vectors_and_the_state_are_read(client: Client) -> None:
    """Every other route gives its model."""
    collections = await client.call("collections")
    assert collections.default_collection == "birds"
    collection = await client.call("collection", "birds")
    assert collection == collections.collections[0]
    assert collection.count == COUNT
    assert (await client.call("facets", "birds")).labels
    assert len((await client.call("sample", "birds", 3)).items) == 3
    vector = await client.call("embed", PICTURES[0])
    assert len(vector.vector) == vector.dimension
    status = await client.call("status")
    assert (status.ready, status.version) == (True, simile_client.__version__)


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        ("search", [b"no image"], problems.UnsupportedFormat),
        ("collection", ["fishes"], problems.UnknownCollection),
        ("item", ["birds", "0" * 16], problems.UnknownItem),
        ("similar", ["birds", "../../x"], problems.UnknownItem),
        ("search", ["http://127.0.0.1/a.jpg"], problems.UrlNotAllowed),
    ],
)
async def test_a_refusal_is_the_error_of_its_code(
    client: Client, method: str, arguments: list[Any], error: type[ApiError]
) -> None:
    """The class, the code, the status and the correlation id are those of the problem body."""
    with pytest.raises(error) as seen:
        await client.call(method, *arguments)
    assert problems.BY_CODE[seen.value.code] is error
    assert seen.value.status == seen.value.problem.status
    assert len(seen.value.problem.correlation_id) == 32


async def test_an_image_beyond_the_limit_is_refused(client: Client) -> None:
    """413 arrives although the body was not read."""
    limit = (await client.call("collections")).limits.image_max_bytes
    with pytest.raises(problems.ImageTooLarge):
        await client.call("search", b"\xff\xd8" + bytes(limit))


async def test_an_error_that_may_pass_is_raised_where_its_wait_exceeds_the_deadline(
    api: Api, client: Client
) -> None:
    """Without searchers, Retry-After is 5 s, and the caller has 2."""
    api.embedder.failing[PICTURES[0]] = Failure("no_searcher", "no searcher runs")
    with pytest.raises(problems.NoSearcher) as seen:
        await client.call("search", PICTURES[0])
    assert (seen.value.status, seen.value.retry_after_seconds) == (503, 5)


async def test_an_image_that_cannot_be_decoded_is_named(api: Api, client: Client) -> None:
    """422 is final: the image is sent once."""
    api.embedder.failing[PICTURES[0]] = Failure("undecodable_image", "the file is truncated")
    with pytest.raises(problems.UndecodableImage, match="the file is truncated"):
        await client.call("search", PICTURES[0])


class TestWithKeys:
    """A service that asks for keys."""

    @pytest.fixture
    def upload_settings(self, tmp_path: Path) -> UploadSettings:
        """A key that may read."""
        file = tmp_path / "keys"
        file.write_text(f"{KEY_LINE.line}\n")
        return UploadSettings(port=0, api_keys_file=file)

    async def test_the_key_is_sent(self, client: Client) -> None:
        """Without one, or with a wrong one, the answer is 401; without the scope it is 403."""
        assert (await client.call("collections", api_key=KEY)).collections
        for wrong in (None, "simile_wrong"):
            with pytest.raises(problems.Unauthenticated):
                await client.call("collections", api_key=wrong)
        with pytest.raises(problems.Forbidden):
            await client.call("status", api_key=KEY)
