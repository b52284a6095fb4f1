"""The HTTP API answers, refuses by name, and never answers 500."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from openapi_spec_validator import validate

from services.shared import errors
from services.shared.contracts import Failure
from services.shared.lifecycle import cancel
from services.shared.messaging import topology
from services.upload.handlers import Handlers
from services.upload.security.session import SessionHandlers
from services.upload.settings import UploadSettings
from services.upload.status import StatusHandlers
from tests.support.pictures import plain_jpeg, png
from tests.unit.upload.conftest import COUNT, OPENAPI, Api, matches, refused


async def test_an_image_is_answered_with_its_neighbours(api: Api, picture: bytes) -> None:
    """The raw body is the image; the answer names collection, version, model, and times."""
    answer = await api.search(picture)
    assert answer.status == 200
    matches("SearchAnswer", answer)
    assert len(answer.json["neighbors"]) == 10
    assert answer.json["matching"] == COUNT
    assert answer.json["index_version"] == api.volume.active("birds")
    assert list(answer.json["timings_ms"]) == [
        "receive", "sniff", "publish", "decode", "model", "search", "messaging", "reply", "total",
    ]  # fmt: skip
    assert "search;dur=3.0" in answer.headers["Server-Timing"]
    assert api.embedder.embedded == [picture]


async def test_a_form_is_accepted_too(api: Api, picture: bytes) -> None:
    """Image and parameters may be form fields, and the query string takes precedence."""
    form = aiohttp.FormData({"k": "7", "collection": "birds"})
    form.add_field("image", picture, filename="../../etc/passwd", content_type="text/html")
    answer = await api.ask("POST", "/v1/search?k=3", data=form)
    assert answer.status == 200
    assert len(answer.json["neighbors"]) == 3


async def test_the_vector_of_an_image(api: Api, picture: bytes) -> None:
    """POST /v1/embed answers the unit-length vector and its model."""
    answer = await api.search(picture, "/v1/embed")
    matches("EmbedAnswer", answer)
    assert sum(value * value for value in answer.json["vector"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v1/collections", "Collections"),
        ("/v1/collections/birds", "Collection"),
        ("/v1/collections/birds/sample?count=5", "Sample"),
        ("/v1/collections/birds/facets", "Facets"),
        (f"/v1/items/birds/{'{item}'}", "ItemOfCollection"),
    ],
)
async def test_facts_fit_their_schemas(api: Api, path: str, schema: str) -> None:
    """Collections and items fit the schemas of openapi.json."""
    answer = await api.get(path.format(item=api.items[0].item_id))
    assert answer.status == 200
    matches(schema, answer)


async def test_item_images_are_served_with_their_true_type(api: Api) -> None:
    """The stored bytes are sent with their type, cacheable, and as 304 when known."""
    item = api.items[1]
    answer = await api.get(f"/v1/items/birds/{item.item_id}/image")
    assert answer.body == (api.images / item.path).read_bytes()
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = await api.get(
        f"/v1/items/birds/{item.item_id}/image", headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert (again.status, again.body) == (304, b"")


async def test_thumbnails_are_small_and_kept(api: Api) -> None:
    """A thumbnail is made once, then served from memory."""
    path = f"/v1/items/birds/{api.items[1].item_id}/thumbnail"
    first, second = await api.get(path), await api.get(path)
    assert first.headers["Content-Type"] == "image/jpeg"
    assert first.body == second.body
    registry = api.telemetry.registry
    made = registry.get_sample_value("simile_upload_thumbnails_total", {"source": "made"})
    kept = registry.get_sample_value("simile_upload_thumbnails_total", {"source": "cache"})
    assert (made, kept) == (1, 1)


async def test_an_image_outside_the_images_is_never_served(api: Api, tmp_path: Path) -> None:
    """A link out of the folder counts as a missing image."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(plain_jpeg((1, 2, 3)))
    linked = api.images / api.items[0].path
    linked.unlink()
    linked.symlink_to(secret)
    refused(await api.get(f"/v1/items/birds/{api.items[0].item_id}/image"), 404, "image_gone")


BOMB = png(30_000, 30_000, 8, 2, [])
THIN = png(4000, 3, 8, 0, [bytes(4000)] * 3)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "empty_image"),
        (b"this is text", 415, "unsupported_format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        (b"\xff\xd8\xff\xe0", 422, "undecodable_image"),
        (BOMB, 413, "too_many_pixels"),
        (THIN, 422, "extreme_aspect"),
        (bytes(16 * 2**20), 413, "image_too_large"),
    ],
    ids=["empty", "text", "svg", "header", "bomb", "thin", "large"],
)
async def test_an_invalid_image_is_refused_from_its_header(
    api: Api, body: bytes, status: int, code: str
) -> None:
    """The header alone decides, and the embedder receives nothing."""
    refused(await api.search(body), status, code)
    assert api.embedder.embedded == []


async def test_a_stream_without_a_length_is_bounded_too(api: Api) -> None:
    """A chunked body is read up to the limit and no further."""

    async def endless() -> Any:
        for _ in range(40):
            yield bytes(2**20)

    refused(await api.search(endless()), 413, "image_too_large")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/search?k=0", 400, "malformed_request"),
        ("POST", "/v1/search?k=3&k=4", 400, "malformed_request"),
        ("POST", "/v1/search?neighbours=3", 400, "malformed_request"),
        ("POST", "/v1/search?max_distance=nan", 400, "malformed_request"),
        ("POST", "/v1/search?collapse=3", 400, "malformed_request"),
        ("POST", "/v1/search?filter=[]", 400, "malformed_request"),
        ("POST", "/v1/search?box=0,0,2,1", 400, "malformed_request"),
        ("POST", "/v1/search?cursor=a/b", 400, "malformed_request"),
        ("GET", "/v1/search/batch", 405, "method_not_allowed"),
        ("POST", "/v1/search?collection=fish", 404, "unknown_collection"),
        ("POST", "/v1/search?collection=../birds", 400, "malformed_request"),
        ("POST", "/v1/embed?k=3", 400, "malformed_request"),
        ("GET", "/v1/search", 405, "method_not_allowed"),
        ("GET", "/nothing/here", 404, "unknown_route"),
        ("GET", "/static/../app.py", 404, "unknown_route"),
        ("GET", "/static/%2e%2e/app.py", 404, "unknown_route"),
        ("GET", "/v1/collections/fish", 404, "unknown_collection"),
        ("GET", "/v1/collections/birds/sample?count=0", 400, "malformed_request"),
        ("GET", "/v1/collections/birds/facets?label=cat", 400, "malformed_request"),
        ("GET", "/v1/collections/fish/facets", 404, "unknown_collection"),
        ("GET", "/v1/items/birds/0000000000000000", 404, "unknown_item"),
        ("GET", "/v1/items/birds/%00", 404, "unknown_item"),
        ("GET", "/v1/items/birds/0000000000000000/image", 404, "unknown_item"),
        ("GET", "/v1/items/fish/0000000000000000/similar", 404, "unknown_collection"),
        ("GET", "/v1/items/birds/0000000000000000/similar", 404, "unknown_item"),
        ("GET", "/v1/items/birds/0000000000000000/similar?k=101", 400, "malformed_request"),
        ("GET", "/v1/items/birds/0000000000000000/similar?box=0,0,1,1", 400, "malformed_request"),
        ("GET", "/v1/items/birds/0000000000000000/similar?collection=a", 400, "malformed_request"),
    ],
)
async def test_a_wrong_request_is_refused_by_name(
    api: Api, picture: bytes, method: str, path: str, status: int, code: str
) -> None:
    """Each mistake has its status and code."""
    data = picture if method == "POST" else None
    refused(await api.ask(method, path, data=data), status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"no form at all",
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc',
        b"--x\r\n\r\nabc\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n3\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n\xff\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="k"\r\n\r\n' + b"1" * 9999 + b"\r\n--x--\r\n",
        (b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc\r\n' * 2) + b"--x--\r\n",
        (
            b'--x\r\nContent-Disposition: form-data; name="image"\r\n'
            b"Content-Transfer-Encoding: base64\r\n\r\n!!!\r\n--x--\r\n"
        ),
    ],
)
async def test_a_hostile_form_is_refused(api: Api, body: bytes) -> None:
    """Truncated, nameless, repeated or oversized forms get a 4xx, and the service continues."""
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await api.search(body, headers=headers)
    assert 400 <= answer.status < 500, answer.json
    assert (await api.get("/v1/collections")).status == 200


async def test_a_form_without_a_boundary_is_refused(api: Api) -> None:
    """The Content-Type of a form must give its boundary."""
    answer = await api.search(b"abc", headers={"Content-Type": "multipart/form-data"})
    refused(answer, 400, "malformed_request")


async def test_a_failure_behind_the_queue_has_its_own_status(api: Api, picture: bytes) -> None:
    """The caller reads the embedder's error for the image."""
    api.embedder.failing[picture] = Failure("undecodable_image", "truncated at row 7")
    answer = await api.search(picture)
    refused(answer, 422, "undecodable_image")
    assert answer.json["detail"] == "truncated at row 7"


async def test_a_blocked_broker_is_a_503_at_once(api: Api, picture: bytes) -> None:
    """While RabbitMQ is blocked, queries are refused."""
    api.broker.block()
    refused(await api.search(picture), 503, "broker_unavailable")
    api.broker.unblock()
    assert (await api.search(picture)).status == 200


async def test_a_lost_connection_fails_what_is_in_flight(api: Api, picture: bytes) -> None:
    """A query whose reply queue is lost is answered at once, by name."""
    api.embedder.silent_after = 0
    asking = asyncio.create_task(api.search(picture))
    while await api.broker.depth(topology.EMBED.name) or not api.broker.ready:
        await asyncio.sleep(0)
    while (api.telemetry.registry.get_sample_value("simile_upload_in_flight_queries") or 0) < 1:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    api.broker.sever()
    refused(await asking, 503, "reply_queue_lost")


async def test_without_an_index_a_search_says_so(api: Api, picture: bytes) -> None:
    """A collection with a broken ACTIVE, and a collection without ACTIVE, give no_index."""
    (api.volume.root / "birds" / "ACTIVE").write_text("nonsense")
    refused(await api.search(picture), 503, "no_index")
    (api.volume.root / "birds" / "ACTIVE").unlink()
    refused(await api.search(picture), 503, "no_index")


class TestShortDeadline:
    """Tests a service with a very short deadline."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings whose deadline no answer meets."""
        return UploadSettings(port=0, deadline_seconds=0.05)

    async def test_no_answer_is_a_504(self, api: Api, picture: bytes) -> None:
        """The caller gets a 504 in time, and a later answer is counted as late."""
        api.embedder.silent_after = 0
        refused(await api.search(picture), 504, "deadline_exceeded")


class TestOneAtATime:
    """Tests a service with a single slot."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with a single query in flight and a short time for bodies."""
        return UploadSettings(port=0, max_in_flight=1, body_timeout_seconds=0.5)

    async def test_more_are_refused_before_their_body_is_read(
        self, api: Api, picture: bytes
    ) -> None:
        """The refusal does not wait for the body."""
        api.embedder.ignoring.add(picture)
        first = asyncio.create_task(api.search(picture))
        registry = api.telemetry.registry
        while (registry.get_sample_value("simile_upload_in_flight_queries") or 0) < 1:
            await asyncio.sleep(0.005)

        async def endless() -> Any:
            while True:
                yield picture[:10]
                await asyncio.sleep(0.01)

        refused(await api.search(endless()), 503, "overloaded")
        await cancel(first)

    async def test_a_body_that_does_not_arrive_is_given_up(self, api: Api) -> None:
        """A caller that sends nothing occupies its slot for a limited time."""

        async def stuck() -> Any:
            yield b"\xff\xd8"
            await asyncio.sleep(2)

        refused(await api.search(stuck()), 408, "body_timeout")


async def test_stopping_answers_what_is_in_flight(api: Api, picture: bytes) -> None:
    """A query that was admitted before the stop is answered, and `run` returns after the answer."""
    api.embedder.silent_after = 0
    asking = asyncio.create_task(api.search(picture))
    registry = api.telemetry.registry
    while (registry.get_sample_value("simile_upload_in_flight_queries") or 0) < 1:
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    api.stop.set()
    while "upload" not in api.telemetry.health.not_ready():
        await asyncio.sleep(0.005)
    api.embedder.silent_after = None
    consumer = await api.broker.consume(topology.EMBED, prefetch=1)
    await consumer.close()
    api.broker.lose_consumers(topology.EMBED.name)
    serving = asyncio.create_task(api.embedder.serve())
    assert (await asking).status == 200
    await api.running
    serving.cancel()


async def test_the_page_is_served_under_a_strict_policy(api: Api) -> None:
    """The page and its files come from upload alone, and browsers revalidate them."""
    page = await api.get("/")
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not {"unsafe", "*", "data:", "http"} & set(policy.replace(";", " ").split())
    assert "unsafe" not in policy
    script = await api.get("/static/app.js")
    assert "javascript" in script.headers["Content-Type"]
    assert script.headers["Cache-Control"] == "no-cache"


async def test_the_description_is_served_as_checked_in(api: Api) -> None:
    """/openapi.json is the file, and valid OpenAPI 3.1."""
    answer = await api.get("/openapi.json")
    assert answer.json == OPENAPI
    validate(OPENAPI)


def test_the_description_knows_every_route_and_no_other() -> None:
    """Paths and methods of openapi.json are those of the application."""
    described = {
        (method.upper(), path) for path, methods in OPENAPI["paths"].items() for method in methods
    }
    handlers = Handlers(None, None, None, None, None)  # type: ignore[arg-type]
    app = web.Application()
    session = SessionHandlers(None, None)  # type: ignore[arg-type]
    status = StatusHandlers("", "", None, None, None, 0)  # type: ignore[arg-type]
    app.add_routes([*handlers.routes(), *session.routes(), *status.routes()])
    served = {
        (route.method, route.resource.canonical) for route in app.router.routes() if route.resource
    }
    own = {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}
    assert described == {pair for pair in served if pair[0] != "HEAD"} | own


def test_the_description_knows_every_code() -> None:
    """The codes of openapi.json are those that a caller can get."""
    callers = {kind.code for kind in errors.by_code().values() if kind.status != 500} | {"internal"}
    assert set(OPENAPI["components"]["schemas"]["Code"]["enum"]) == callers


async def test_a_large_sample_has_every_item_once(api: Api) -> None:
    """A request for more items than the collection holds gives each item once."""
    answer = await api.get("/v1/collections/birds/sample?count=200")
    assert len({item["item_id"] for item in answer.json["items"]}) == COUNT
