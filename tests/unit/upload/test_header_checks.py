"""Request headers are checked: Host, Origin, Expect, content codings."""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from typing import Any

import pytest

from services.shared.settings import load
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import Api, connected, matches, refused
from tests.unit.upload.test_api_keys import SHOP, SHOP_KEY

PICTURE = plain_jpeg((20, 120, 220))
POSTS = ("/v1/search", "/v1/search/batch", "/v1/embed")


async def _sent(api: Api, request: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the first answer to these bytes."""
    async with connected(api) as (reader, writer):
        writer.write(request.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        status = int((await reader.readline()).split(b" ")[1])
        headers = dict[str, str]()
        while line := (await reader.readline()).decode().strip():
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        content = await reader.readexactly(int(headers.get("content-length", "0")))
    return status, headers, content


OWN = (
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "simile.localhost:8080",
    "127.0.0.1:1",
    "127.8.9.10",
    "[::1]:8080",
    "[::ffff:127.0.0.1]",
    "[::1",
)
FOREIGN = (
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "evil-localhost",
    "10.0.0.1",
    "0.0.0.0",  # noqa: S104 (a name, not bound)
    "[fe80::1]",
    "localhost@evil.example",
    "",
)


@pytest.mark.parametrize("path", ["/v1/collections", "/", "/static/app.js", "/nothing"])
async def test_without_keys_only_this_machines_names_are_answered(api: Api, path: str) -> None:
    """A name that was rebound to this machine is refused on every route, with advice."""
    for host in OWN:
        status, _, _ = await _sent(api, f"GET {path} HTTP/1.1\nHost: {host}")
        assert status == (404 if path == "/nothing" else 200)
    for host in FOREIGN:
        status, headers, body = await _sent(api, f"GET {path} HTTP/1.1\nHost: {host}")
        assert (status, json.loads(body)["code"]) == (421, "host_not_allowed")
        assert "SIMILE_UPLOAD_ALLOWED_HOSTS" in json.loads(body)["detail"]
        assert headers["content-type"].startswith("application/problem+json")


async def test_an_absolute_address_is_checked_like_the_host(api: Api) -> None:
    """Address and Host must both be allowed; HTTP/1.1 requires a Host, HTTP/1.0 does not."""
    for target, host in (("http://evil.example/", "localhost"), ("http://localhost/", "evil.eu")):
        assert (await _sent(api, f"GET {target} HTTP/1.1\nHost: {host}"))[0] == 421
    assert (await _sent(api, "GET http://localhost/ HTTP/1.1\nHost: localhost"))[0] == 200
    assert (await _sent(api, "GET / HTTP/1.0"))[0] == 200
    status, _, body = await _sent(api, "GET / HTTP/1.1")
    assert (status, json.loads(body)["code"]) == (400, "malformed_request")


class TestListedHost:
    """Tests a service with allowed host names."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with two names besides this machine's."""
        return UploadSettings(port=0, allowed_hosts="simile.example, pics.example:8080")

    async def test_listed_names_are_answered(self, api: Api) -> None:
        """A name without a port matches any port; a name with a port matches that port alone."""
        good = ("simile.example", "Simile.example:99", "pics.example:8080", "localhost")
        for host in good:
            headers = {"Host": host, "Origin": f"http://{host}"}
            assert (await api.get("/v1/collections", headers=headers)).status == 200
        for host in ("pics.example", "pics.example:80", "evil.example"):
            refused(
                await api.get("/v1/collections", headers={"Host": host}), 421, "host_not_allowed"
            )


class TestAnyHost:
    """Tests a service with keys."""

    @pytest.fixture
    def upload_settings(self, tmp_path: Any) -> UploadSettings:
        """Return settings with a key."""
        file = tmp_path / "keys"
        file.write_text(SHOP_KEY.line)
        return UploadSettings(port=0, api_keys_file=file)

    async def test_with_keys_any_name_is_answered(self, api: Api) -> None:
        """With keys any host name is accepted, since no foreign page knows the key."""
        headers = {"Host": "shop.example", "Authorization": f"Bearer {SHOP}"}
        headers["Origin"] = "http://other.example"
        assert (await api.get("/v1/collections", headers=headers)).status == 200


@pytest.mark.parametrize(
    ("settings", "only_own"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"allowed_hosts": "*"}, False),
        ({"allowed_hosts": "simile.example"}, True),
        ({"host": "0.0.0.0", "allow_anonymous": True}, False),  # noqa: S104
        ({"host": "0.0.0.0", "allow_anonymous": True, "allowed_hosts": "a"}, True),  # noqa: S104
        ({"api_keys_file": "keys"}, False),
        ({"api_keys_file": "keys", "allowed_hosts": "simile.example"}, True),
    ],
)
def test_names_are_checked_where_they_protect(settings: dict[str, Any], only_own: bool) -> None:  # noqa: FBT001
    """Names are checked without keys on this machine, or where names are listed."""
    assert load(UploadSettings, **settings).only_own_hosts == only_own


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "javascript://localhost"}, 403),
        ({"Origin": "file://localhost"}, 403),
        ({"Origin": "http://[evil"}, 403),
        ({"Origin": "http://localhost.evil.example"}, 403),
    ],
)
async def test_without_keys_pages_of_other_sites_are_refused(
    api: Api, headers: dict[str, str], status: int
) -> None:
    """Such a page could not read the answer, but could cause work on this machine."""
    item = f"/v1/items/birds/{api.items[0].item_id}/similar"
    for answer in (await api.get(item, headers=headers), await api.get("/", headers=headers)):
        assert answer.status == status
        if status == 403:
            refused(answer, 403, "forbidden")
    posted = await api.search(PICTURE, headers=headers)
    assert posted.status == (403 if "cross-site" in headers.values() else status)


class TestOneOrigin:
    """Tests a service with an allowed origin."""

    @pytest.fixture
    def upload_settings(self) -> UploadSettings:
        """Return settings with an allowed origin."""
        return UploadSettings(port=0, cors_origins="https://shop.example")

    async def test_a_page_of_an_allowed_origin_may_send_queries(self, api: Api) -> None:
        """The allowed origin is accepted, and no other."""
        for origin, status in (("https://shop.example", 200), ("https://evil.example", 403)):
            assert (await api.search(PICTURE, headers={"Origin": origin})).status == status


@pytest.mark.parametrize("expected", ["200-ok", "100-continue, x", "\xff"])
async def test_another_expectation_is_refused_by_name(api: Api, expected: str) -> None:
    """The answer is 417 with a problem body, on every route."""
    for path in (*POSTS, "/v1/collections", "/nothing", "/static/app.js"):
        method = "POST" if path in POSTS else "GET"
        head = f"{method} {path} HTTP/1.1\nHost: localhost\nContent-Length: 0"
        status, headers, body = await _sent(api, f"{head}\nExpect: {expected}")
        assert (status, json.loads(body)["code"]) == (417, "expectation_failed")
        assert headers["content-type"].startswith("application/problem+json")
        assert headers["x-correlation-id"] == json.loads(body)["correlation_id"]


async def test_ranges_and_preconditions_are_ignored(api: Api) -> None:
    """The whole file is sent, and never a bare 416."""
    for header in ("Range: bytes=9999999-", "Range: lines=1", 'If-Match: "x"',
                   "If-Unmodified-Since: Mon, 01 Jan 1990 00:00:00 GMT"):  # fmt: skip
        for path in ("/static/app.js", "/", "/openapi.json"):
            head = f"GET {path} HTTP/1.1\nHost: localhost\n{header}"
            status, headers, content = await _sent(api, head)
            assert (status, len(content)) == (200, int(headers["content-length"]))


@pytest.mark.parametrize("path", POSTS)
async def test_continue_is_sent_only_before_a_body_is_read(api: Api, path: str) -> None:
    """100 Continue is sent before an answer, and not before a refusal from the head."""
    head = f"POST {path} HTTP/1.1\nHost: localhost\nExpect: 100-continue\nContent-Type: x/y\n"
    status, _, _ = await _sent(api, f"{head}Content-Length: {10**9}")
    assert status in {413, 400}
    if path != "/v1/search/batch":
        async with api.session.post(f"{api.url}{path}", data=PICTURE, expect100=True) as answer:
            assert answer.status == 200
        assert (await _sent(api, f"{head}Content-Length: {len(PICTURE)}"))[0] == 100


async def test_no_answer_names_a_version_of_the_server(api: Api) -> None:
    """The header Server has the product's name alone, also in answers to bytes that are no HTTP."""
    for path in ("/", "/v1/collections", "/static/app.js", "/openapi.json", "/no", "/static/no"):
        assert (await api.get(path)).headers["Server"] == "simile"
    assert (await _sent(api, "no http"))[1]["server"] == "simile"


@pytest.mark.parametrize("path", [*POSTS, "/v1/session"])
async def test_a_body_with_a_coding_is_refused(api: Api, path: str) -> None:
    """Coded bodies are refused with 415, which names the accepted coding."""
    for coding in ("gzip", "deflate", "br", "zstd", "x, gzip", "nonsense"):
        answer = await api.search(
            PICTURE, path, headers={"Content-Encoding": coding, "Content-Type": "application/json"}
        )
        refused(answer, 415, "unsupported_coding")
        assert answer.headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("coding", ["", "identity", "Identity"])
async def test_the_coding_identity_is_accepted(api: Api, coding: str) -> None:
    """A client may declare that the body is not compressed."""
    assert (await api.search(PICTURE, headers={"Content-Encoding": coding})).status == 200


CODINGS = (
    ("Content-Encoding", "deflate", zlib.compress(PICTURE)),
    ("Content-Encoding", "deflate", PICTURE),
    ("Content-Encoding", "gzip", gzip.compress(PICTURE)),
    ("Content-Encoding", "gzip", gzip.compress(bytes(2**20))),
    ("Content-Encoding", "br", PICTURE),
    ("Content-Transfer-Encoding", "base64", b"/9j/"),
    ("Content-Transfer-Encoding", "quoted-printable", PICTURE),
)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("kind", ["form-data", "mixed"])
async def test_a_part_with_a_coding_is_refused(api: Api, path: str, kind: str) -> None:
    """A coded image or parameter is refused with 400 on every route that accepts a form."""
    for (header, coding, content), field in itertools.product(CODINGS, ("image", "filter")):
        head = f'--x\r\nContent-Disposition: form-data; name="{field}"\r\n{header}: {coding}'
        form = head.encode() + b"\r\n\r\n" + content + b"\r\n--x--\r\n"
        headers = {"Content-Type": f"multipart/{kind}; boundary=x"}
        answer = await api.search(form, path, headers=headers)
        refused(answer, 400, "malformed_request")
        assert header in answer.json["detail"]


async def test_a_part_without_an_effective_coding_is_accepted(api: Api) -> None:
    """Clients declare binary, 8bit or 7bit."""
    for coding in ("binary", "8bit", "7BIT"):
        head = b'--x\r\nContent-Disposition: form-data; name="image"\r\n'
        head += b"Content-Transfer-Encoding: " + coding.encode() + b"\r\n\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = await api.search(head + PICTURE + b"\r\n--x--\r\n", headers=headers)
        matches("SearchAnswer", answer)
