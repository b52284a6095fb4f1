"""Images are fetched from public addresses, and from no internal ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import FormData, web

from services.shared.errors import ImageTooLarge, SimileError, UrlNotAllowed, UrlUnreachable
from services.upload.query.remote_image import RemoteImages, is_public
from services.upload.settings import UploadSettings
from tests.support.pictures import plain_jpeg
from tests.unit.upload.conftest import Api, form_of, matches, refused

PICTURE = plain_jpeg((10, 200, 90))
LOOPBACK = "127.0.0.1"


@dataclass
class Names:
    """Resolves made-up names; each look-up returns the next addresses of its name."""

    answers: dict[str, list[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """Return the next addresses of the name."""
        del port
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(host)
        left = self.answers[host]
        return left.pop(0) if len(left) > 1 else left[0]


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@contextlib.asynccontextmanager
async def _served(handler: Handler) -> AsyncIterator[int]:
    """Run a server on the loopback address, and yield its port."""
    runner = web.ServerRunner(web.Server(handler))  # type: ignore[arg-type]
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _remote(
    names: Names, *allowed: str, max_bytes: int = 10**6, seconds: float = 5.0
) -> RemoteImages:
    return RemoteImages(frozenset(allowed), max_bytes, seconds, names)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1",  # noqa: S104
        "127.255.255.254", "168.63.129.16", "169.254.169.254", "172.16.0.1", "172.31.255.255",
        "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1",
        "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
        "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::7f00:1",
        "64:ff9b::808:808", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::",
        "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "nonsense",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    """Private, loopback, link-local, metadata, multicast and reserved addresses are not public."""
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """Addresses of the internet are public."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "", "no address", "ftp://a.example/a", "file:///etc/passwd", "gopher://a.example",
        "data:image/png;base64,AAAA", "http://", "http:///etc", "//a.example/a", "/a",
        "http://user@a.example/a", "http://user:pass@a.example/a", "http://:pass@a.example/",
        "http://a.example:22/", "http://a.example:8080/", "https://a.example:80/",
        "http://127.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://0/",
        "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/",
        "http://169.254.169.254/latest/meta-data/", "http://[fe80::1%25eth0]/", "http://①②⑦.⓪.⓪.①/",
        "http://localhost/", "http://localhost./", "http://inside.example/",
        "http://a.example/" + "a" * 3000, "http://[bad/", "http://a.example:99999/",
    ],
)  # fmt: skip
async def test_an_address_that_is_not_allowed_is_never_asked(address: str) -> None:
    """Such an address is refused by scheme, user, port or meaning, before any connection."""
    inside: list[Sequence[str]] = [[LOOPBACK]]
    known = ("localhost", "localhost.", "127.1", "0", "2130706433", "0x7f000001", "0177.0.0.1")
    names = Names({"inside.example": [["10.0.0.7"]], "a.example": [["1.1.1.1"]]})
    names.answers.update(dict.fromkeys(known, inside))
    with pytest.raises(SimileError) as seen:
        await _remote(names).fetch(address)
    assert seen.value.code in {"url_not_allowed", "url_unreachable"}
    if seen.value.code == "url_unreachable":
        assert "is not known" in str(seen.value)


async def test_an_internal_address_among_others_is_refused() -> None:
    """A name with a public and a private address is refused, in any order of the addresses."""
    names = Names({"both.example": [["1.1.1.1", "192.168.0.1"]]})
    with pytest.raises(UrlNotAllowed):
        await _remote(names).fetch("http://both.example/a.jpg")


async def test_an_allowed_host_is_fetched_from() -> None:
    """The operator's list permits a private address and another port."""
    seen: list[web.BaseRequest] = []

    async def image(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        answer = web.Response(body=PICTURE, content_type="image/jpeg")
        answer.set_cookie("a", "b")
        return answer

    async with _served(image) as port:
        names = Names({"images.internal": [[LOOPBACK]]})
        remote = _remote(names, f"images.internal:{port}")
        for _ in range(2):
            assert await remote.fetch(f"http://images.internal:{port}/a.jpg") == PICTURE
        with pytest.raises(UrlNotAllowed):
            await remote.fetch(f"http://127.0.0.1:{port}/a.jpg")
    assert seen[0].headers["Host"] == f"images.internal:{port}"
    assert not {"Cookie", "Authorization"} & set(seen[1].headers)


async def test_the_vetted_address_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that changes between look-ups (DNS rebinding) is looked up once, and pinned."""
    reached: list[str] = []

    async def image(request: web.BaseRequest) -> web.Response:
        reached.append(str(request.remote))
        return web.Response(body=PICTURE)

    async with _served(image) as port:
        names = Names({"rebinding.example": [[LOOPBACK], ["10.255.255.1"]]})
        # This test makes loopback public, so that its server stands for one of the internet.
        monkeypatch.setattr(
            "services.upload.query.remote_image.is_public", lambda it: it == LOOPBACK
        )
        remote = replace(_remote(names), ports={"http": port})
        assert await remote.fetch(f"http://rebinding.example:{port}/") == PICTURE
        assert names.asked == ["rebinding.example"]
        with pytest.raises(UrlNotAllowed):
            await remote.fetch(f"http://rebinding.example:{port}/")
    assert reached == [LOOPBACK]


@pytest.mark.parametrize(
    "location",
    [
        "http://inside.example/", "http://127.0.0.1/", "http://[::1]/", "//169.254.169.254/",
        "file:///etc/passwd", "http://user:pass@inside.example/", "http://inside.example:6379/",
    ],
)  # fmt: skip
async def test_each_redirect_is_vetted(location: str) -> None:
    """A redirect of an allowed host to an internal address is refused."""

    async def leads(request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(status=302, headers={"Location": location})

    async with _served(leads) as port:
        names = Names({"images.internal": [[LOOPBACK]], "inside.example": [["10.0.0.7"]]})
        remote = _remote(names, f"images.internal:{port}")
        with pytest.raises(UrlNotAllowed):
            await remote.fetch(f"http://images.internal:{port}/a.jpg")


@pytest.mark.parametrize(("hops", "arrives"), [(3, True), (4, False)])
async def test_redirects_are_bounded(hops: int, arrives: bool) -> None:  # noqa: FBT001
    """Three redirects are followed, also relative ones, and a fourth is an error."""

    async def leads(request: web.BaseRequest) -> web.Response:
        left = int(request.path.strip("/"))
        if left == 0:
            return web.Response(body=PICTURE)
        return web.Response(status=307, headers={"Location": f"/{left - 1}"})

    async with _served(leads) as port:
        remote = _remote(Names({"images.internal": [[LOOPBACK]]}), f"images.internal:{port}")
        fetching = remote.fetch(f"http://images.internal:{port}/{hops}")
        if arrives:
            assert await fetching == PICTURE
        else:
            with pytest.raises(UrlUnreachable, match="3 times"):
                await fetching


@pytest.mark.parametrize("declared", [True, False])
async def test_an_image_is_read_up_to_the_limit(declared: bool) -> None:  # noqa: FBT001
    """An image above the limit is given up, by its Content-Length or while it streams."""
    sent = 0

    async def large(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse(headers={"Content-Length": str(10**8)} if declared else {})
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                await answer.write(bytes(10**5))
                sent += 10**5
        return answer

    async with _served(large) as port:
        remote = _remote(Names({"a": [[LOOPBACK]]}), f"a:{port}", max_bytes=10**6)
        with pytest.raises(ImageTooLarge):
            await remote.fetch(f"http://a:{port}/")
    assert sent < 10**8


async def test_a_compressed_answer_is_not_opened() -> None:
    """A small compressed answer must not become large in memory."""

    async def squeezed(request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(body=b"\x1f\x8b squeezed", headers={"Content-Encoding": "gzip"})

    async with _served(squeezed) as port:
        remote = _remote(Names({"a": [[LOOPBACK]]}), f"a:{port}")
        assert await remote.fetch(f"http://a:{port}/") == b"\x1f\x8b squeezed"


async def test_the_time_is_bounded_in_all() -> None:
    """A server that is silent, or sends a byte now and then, is given up in time."""

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await answer.write(b"\xff")
                await asyncio.sleep(0.05)
        return answer

    async with _served(slow) as port:
        remote = _remote(Names({"a": [[LOOPBACK]]}), f"a:{port}", seconds=0.3)
        with pytest.raises(UrlUnreachable, match=r"0\.3 s"):
            await remote.fetch(f"http://a:{port}/")


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500])
async def test_an_answer_that_is_no_image_is_reported(status: int) -> None:
    """Only status 200 brings an image; the body of any other answer is not shown to the caller."""

    async def wrong(request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(status=status, text=None if status in {204, 304} else "internal news")

    async with _served(wrong) as port:
        remote = _remote(Names({"a": [[LOOPBACK]]}), f"a:{port}")
        with pytest.raises(UrlUnreachable, match=str(status)) as seen:
            await remote.fetch(f"http://a:{port}/")
    assert "news" not in str(seen.value)


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would look names up again, and may be internal."""

    async def image(request: web.BaseRequest) -> web.Response:
        del request
        return web.Response(body=PICTURE)

    async with _served(image) as port:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1/")
        remote = _remote(Names({"a": [[LOOPBACK]]}), f"a:{port}")
        assert await remote.fetch(f"http://a:{port}/") == PICTURE


async def test_by_default_nothing_is_fetched(api: Api, picture: bytes) -> None:
    """Query by URL is off by default; in a batch the other images are answered."""
    address = "http://127.0.0.1:1/a.jpg"
    answer = await api.ask("POST", "/v1/search", params={"image_url": address})
    refused(answer, 400, "url_not_allowed")
    embedded = await api.ask("POST", "/v1/embed", params={"image_url": address})
    refused(embedded, 400, "url_not_allowed")
    batch = await api.ask("POST", "/v1/search/batch", data=form_of(picture, image_url=address))
    assert batch.status == 200
    codes = [one.get("problem", {}).get("code", "ok") for one in batch.json["results"]]
    assert codes == ["url_not_allowed", "ok"]


class TestQueryByUrl:
    """Tests a service with query by URL."""

    @pytest.fixture
    def upload_settings(self, unused_tcp_port: int) -> UploadSettings:
        """Return settings that allow a host of this machine."""
        return UploadSettings(
            port=0, query_by_url=True, url_allowed_hosts=f"{LOOPBACK}:{unused_tcp_port}"
        )

    async def test_an_image_is_searched_by_its_address(
        self, api: Api, picture: bytes, unused_tcp_port: int
    ) -> None:
        """The address is a form's field or a parameter; an image beside it is refused."""

        async def image(request: web.BaseRequest) -> web.Response:
            del request
            return web.Response(body=picture)

        address = f"http://{LOOPBACK}:{unused_tcp_port}/a.png"
        runner = web.ServerRunner(web.Server(image))
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, unused_tcp_port).start()
        answer = await api.ask("POST", "/v1/search", params={"image_url": address, "k": "3"})
        assert answer.status == 200
        assert len(answer.json["neighbors"]) == 3
        assert api.embedder.embedded == [picture]
        both = await api.search(picture, params={"image_url": address})
        refused(both, 400, "malformed_request")
        await runner.cleanup()
        refused(
            await api.ask("POST", "/v1/search", params={"image_url": address}),
            422,
            "url_unreachable",
        )

    async def test_every_route_by_image_takes_an_address(
        self, api: Api, picture: bytes, unused_tcp_port: int
    ) -> None:
        """`embed` gives the vector; a batch takes several addresses, and each fails alone."""

        async def image(request: web.BaseRequest) -> web.Response:
            return web.Response(body=picture, status=200 if request.path == "/a.png" else 404)

        address = f"http://{LOOPBACK}:{unused_tcp_port}/a.png"
        runner = web.ServerRunner(web.Server(image))
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, unused_tcp_port).start()
        embedded = await api.ask("POST", "/v1/embed", params={"image_url": address})
        assert embedded.status == 200
        form = form_of(picture)
        for named in (address, f"{address}.gone", "http://169.254.169.254/"):
            form.add_field("image_url", named)
        answer = await api.ask("POST", "/v1/search/batch", data=form, params={"k": "3"})
        await runner.cleanup()
        assert answer.status == 200
        matches("BatchAnswer", answer)
        codes = [one.get("problem", {}).get("code", "ok") for one in answer.json["results"]]
        assert codes == ["ok", "ok", "url_unreachable", "url_not_allowed"]
        assert answer.json["results"][1]["name"] == address

    async def test_the_addresses_of_a_batch_count_as_images(self, api: Api) -> None:
        """More images and addresses than a batch may hold are refused, and none is fetched."""
        form = FormData(default_to_multipart=True)
        for _ in range(17):
            form.add_field("image_url", "http://images.example/a.png")
        answer = await api.ask("POST", "/v1/search/batch", data=form)
        refused(answer, 400, "malformed_request")
        assert "16 images" in answer.json["detail"]

    async def test_the_metadata_address_is_refused_by_name(self, api: Api) -> None:
        """The metadata address of clouds is refused."""
        address = "http://169.254.169.254/latest/meta-data/"
        answer = await api.ask("POST", "/v1/search", params={"image_url": address})
        refused(answer, 400, "url_not_allowed")
