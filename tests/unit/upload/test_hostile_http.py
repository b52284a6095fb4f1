"""Hostile requests on a real socket get a 4xx, or end the connection."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import Api, refused

PICTURE = plain_jpeg((20, 120, 220))
HEAD = b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\n"


async def _connect(api: Api) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = api.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def _sent(api: Api, request: bytes) -> bytes:
    """Return the bytes of the answer until the server closes the connection."""
    reader, writer = await _connect(api)
    writer.write(request)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _form(disposition: bytes, content: bytes = PICTURE) -> bytes:
    return (
        b"--x\r\nContent-Disposition: form-data; "
        + disposition
        + b"\r\nContent-Type: image/jpeg\r\n\r\n"
        + content
        + b"\r\n--x--\r\n"
    )


FORM = {"Content-Type": "multipart/form-data; boundary=x"}


class TestSlowHeads:
    """Tests a service with a short time for heads."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with 0.12 s for a head and for a body."""
        return UploadSettings(port=0, header_timeout_seconds=0.12, body_timeout_seconds=0.12)

    @pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\n"])
    async def test_an_incomplete_head_is_given_up(self, api: Api, begin: bytes) -> None:
        """Neither silence nor an occasional header (Slowloris) keeps a connection open."""
        reader, writer = await _connect(api)

        async def drip() -> None:
            writer.write(begin)
            while begin:
                await asyncio.sleep(0.05)
                writer.write(b"X-B: 2\r\n")
                await writer.drain()

        dripping = asyncio.create_task(drip())
        async with asyncio.timeout(10):
            assert await _end(reader) == b""
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()
        assert (await api.get("/v1/collections")).status == 200

    async def test_a_second_head_on_a_connection_is_timed_too(self, api: Api) -> None:
        """An idle connection may stay, as proxies keep them; a new head is timed."""
        reader, writer = await _connect(api)
        request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        for pause in (0, 0.18):
            await asyncio.sleep(pause)
            writer.write(request)
            assert b" 200 " in await reader.readline()
            await _skip_answer(reader)
        writer.write(request[:20])
        async with asyncio.timeout(10):
            assert await _end(reader) == b""
        writer.close()

    async def test_a_slow_answer_is_not_a_slow_head(self, api: Api) -> None:
        """The time limit of the head does not affect the answer."""
        api.embedder.silent_after = 0
        asking = asyncio.create_task(api.search(PICTURE))
        await asyncio.sleep(0.18)
        assert not asking.done()
        asking.cancel()

    async def test_a_body_byte_by_byte_is_given_up(self, api: Api) -> None:
        """The limit is for the whole body, however steadily bytes arrive."""
        reader, writer = await _connect(api)
        writer.write(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
        begun = time.monotonic()
        answering = asyncio.create_task(reader.readline())
        while not answering.done() and time.monotonic() - begun < 10:
            writer.write(b"\xff")
            await asyncio.sleep(0.02)
        assert b" 408 " in await answering
        writer.close()


async def _end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


async def _skip_answer(reader: asyncio.StreamReader) -> None:
    length = 0
    while (line := await reader.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    await reader.readexactly(length)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: \x00\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"no http at all\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ],
    ids=[
        "nul", "negative", "smuggled", "two-lengths", "tls",
        "text", "version",
    ],
)  # fmt: skip
async def test_a_head_that_is_wrong_is_refused(api: Api, head: bytes) -> None:
    """Oversized, ambiguous or invalid heads get a problem with a code, and the connection ends."""
    answer = await _sent(api, head)
    assert 400 <= _status(answer) < 500
    start, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in start
    assert json.loads(body.split(b"HTTP/1.1")[0])["code"] == "malformed_request"
    assert b"nosniff" in start
    assert (await api.get("/v1/collections")).status == 200


GET = b"GET /v1/collections HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "head",
    [
        GET + b"Cookie: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"X-A: 1\r\n" * 1_000 + b"\r\n",
        GET + b"A" * 40_000 + b": 1\r\n\r\n",
        GET + b"".join(b"X-%d: %s\r\n" % (number, b"a" * 9_000) for number in range(50)),
    ],
    ids=["field", "line", "many", "name", "together"],
)
async def test_a_head_that_is_too_large_is_refused(api: Api, head: bytes) -> None:
    """Neither one header, nor all of them, may take more memory than is foreseen."""
    answer = await _sent(api, head)
    start, _, body = answer.partition(b"\r\n\r\n")
    assert _status(answer) == 431
    assert b"application/problem+json" in start
    problem = json.loads(body.split(b"HTTP/1.1")[0])
    assert problem["code"] == "head_too_large"
    assert "delete the cookies of this site" in problem["detail"]
    assert (await api.get("/v1/collections")).status == 200


async def test_large_cookies_of_a_proxy_do_no_harm(api: Api) -> None:
    """Proxies that sign people in set cookies of several kilobytes, for pages and API alike."""
    cookies = {"Cookie": "; ".join(f"_proxy_{number}={'a' * 4000}" for number in range(7))}
    for path in ("/", "/v1/collections", "/static/app.js"):
        assert (await api.get(path, headers=cookies)).status == 200


@pytest.mark.parametrize("coding", [b"gzip, chunked", b"deflate,chunked", b"x, chunked"])
async def test_a_transfer_coding_is_refused(api: Api, coding: bytes) -> None:
    """Aiohttp decodes chunks and no other coding; the error is that of a content coding."""
    head = HEAD + b"Connection: close\r\nTransfer-Encoding: " + coding + b"\r\n\r\n"
    answer = await _sent(api, head + b"5\r\n12345\r\n0\r\n\r\n")
    assert _status(answer) == 415
    assert b'"unsupported_coding"' in answer


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/%2e%2e%2f%2e%2e%2fshared%2fsettings.py",
        "/static/..\\app.py",
        "/static//etc/passwd",
        "/static/%00",
        "/v1/collections/..%2f..%2fetc",
        "/v1/collections/birds%2f..%2fbirds",
        "/v1/collections/.",
        "/v1/collections/%2e%2e",
        "/v1/items/..%2f..%2f/etc/image",
        "/v1/items/birds/..%2f..%2fsecret/image",
        "/v1/items/birds/%2e%2e%2f%2e%2e%2fetc%2fpasswd/thumbnail",
        "//etc/passwd",
    ],
)
async def test_no_path_leads_out(api: Api, path: str) -> None:
    """Dots, escapes and slashes in a path give 4xx, and no file's content."""
    answer = await _sent(
        api, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert 400 <= _status(answer) < 500
    assert b"import" not in answer
    assert b"root:" not in answer


def _files(folder: Path) -> set[Path]:
    """Return the files of the service's folders, and the file that the names below refer to."""
    owned = Path("/tmp/simile-owned.jpg")  # noqa: S108 (the names refer to this path)
    return {path for path in [*folder.rglob("*"), owned] if path.is_file()}


@pytest.mark.parametrize(
    "disposition",
    [
        b'name="image"; filename="../../../../tmp/simile-owned.jpg"',
        b'name="image"; filename="/tmp/simile-owned.jpg"',
        b"name=\"image\"; filename*=UTF-8''..%2f..%2ftmp%2fsimile-owned.jpg",
        b"name=\"image\"; filename*=UTF-8''a%0d%0aSet-Cookie%3a%20owned%3d1",
        b'name="image"; filename="a\\r\\nSet-Cookie: owned=1"',
        b'name="image"; filename="a%0d%0aSet-Cookie: owned=1"',
        b'name="image"; filename="\xff\xfe<script>"',
        b'name="image"; filename="' + b"a" * 4000 + b'"',
    ],
)
async def test_a_file_name_is_only_returned(api: Api, disposition: bytes, tmp_path: Path) -> None:
    """No name reaches the disk or a header; a batch returns the name as JSON, cut to 255."""
    before = await asyncio.to_thread(_files, tmp_path)
    answer = await api.ask("POST", "/v1/search/batch", data=_form(disposition), headers=FORM)
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers
    assert len(answer.json["results"][0]["name"]) <= 255
    single = await api.ask("POST", "/v1/search", data=_form(disposition), headers=FORM)
    assert single.status == 200
    assert "Set-Cookie" not in single.headers
    assert await asyncio.to_thread(_files, tmp_path) == before


async def test_a_header_in_a_part_can_not_be_split(api: Api) -> None:
    """A line break in a name ends the part's header there, and the form is not parsed further."""
    form = _form(b'name="image"; filename="a\r\nX-Owned: 1\r\n"')
    answer = await api.ask("POST", "/v1/search/batch", data=form, headers=FORM)
    assert answer.status in {200, 400}
    assert "X-Owned" not in answer.headers


@pytest.mark.parametrize("size", [40_000, 1_000_000])
async def test_a_large_head_of_a_part_is_refused(api: Api, size: int) -> None:
    """The heads of a form's parts have a limit, too."""
    form = _form(b'name="image"; filename="' + b"a" * size + b'"')
    refused(await api.ask("POST", "/v1/search", data=form, headers=FORM), 400, "malformed_request")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("text/html", 200),
        ("application/json", 200),
        ("image/svg+xml", 200),
        ("application/x-www-form-urlencoded", 200),
        ("nonsense", 200),
        ('image/jpeg; charset="\xe9', 200),
        ("multipart/form-data", 400),
        ("multipart/mixed; boundary=y", 400),
        ("multipart/form-data; boundary=" + "y" * 200, 400),
    ],
)
async def test_a_wrong_content_type_decides_nothing(api: Api, kind: str, status: int) -> None:
    """An image's bytes decide its format; only a form is recognized by its type, and must parse."""
    answer = await api.search(PICTURE, headers={"Content-Type": kind})
    assert answer.status == status
    if status == 400:
        refused(answer, 400, "malformed_request")


@pytest.mark.parametrize("chunks", [b"zz\r\nabc\r\n", b"3\r\nabcdef\r\n0\r\n\r\n", b"-1\r\n\r\n"])
@pytest.mark.parametrize("kind", [b"image/jpeg", b"multipart/form-data; boundary=x"])
async def test_wrong_chunks_are_refused(api: Api, chunks: bytes, kind: bytes) -> None:
    """A body that breaks its own framing is the caller's mistake, and gets 400."""
    head = HEAD + b"Transfer-Encoding: chunked\r\nContent-Type: "
    answer = await _sent(api, head + kind + b"\r\n\r\n" + chunks)
    assert _status(answer) == 400
    assert b"malformed_request" in answer


@pytest.mark.parametrize(
    "content",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<!doctype html><script>alert(1)</script>",
        b"GIF89a/*" + b"<script>alert(1)</script>",
    ],
    ids=["svg", "html", "polyglot"],
)
async def test_active_content_is_never_served(api: Api, content: bytes) -> None:
    """A file that was replaced after the build is served as an image, or not at all."""
    item = api.items[2]
    (api.images / item.path).write_bytes(content)
    answer = await api.get(f"/v1/items/birds/{item.item_id}/image")
    assert answer.status in {200, 404, 415, 422}
    assert answer.headers["Content-Type"].split(";")[0] in {"image/gif", "application/problem+json"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
