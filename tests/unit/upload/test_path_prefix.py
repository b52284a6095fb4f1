"""Simile under a path of a proxy: the API, the cookie, redirects and the addresses in answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from yarl import URL

from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.support.reverse_proxy import reverse_proxy
from tests.unit.upload.conftest import Api, refused

PREFIX = "/tools/simile"
SECRET, KEY = new_key("page", [Scope.READ])


@pytest.fixture
def upload_settings(tmp_path: Path) -> UploadSettings:
    """Return settings with the prefix and a key."""
    (tmp_path / "keys").write_text(KEY.line)
    return UploadSettings(port=0, path_prefix=PREFIX, api_keys_file=tmp_path / "keys")


@pytest.fixture(params=[False, True], ids=["kept", "removed"])
async def site(api: Api, request: pytest.FixtureRequest) -> AsyncIterator[URL]:
    """Yield the URL under the prefix, which the proxy keeps or removes."""
    async with reverse_proxy(api.url, PREFIX, strip=request.param) as url:
        yield URL(url)


async def test_pages_and_their_files_are_under_the_prefix(api: Api, site: URL) -> None:
    """The pages name their files by relative addresses, which lead under the prefix."""
    for page in ("", "status", "docs"):
        async with api.session.get(site / page if page else site) as answer:
            assert answer.status == 200
            text = await answer.text()
        assert 'href="/' not in text
        assert 'src="/' not in text
        async with api.session.get(site.join(URL("static/style.css"))) as answer:
            assert answer.content_type == "text/css"


async def test_answers_name_addresses_under_the_prefix(api: Api, site: URL, picture: bytes) -> None:
    """An image's address leads from the host, past the proxy, to the image."""
    headers = {"X-API-Key": SECRET}
    async with api.session.post(site / "v1/search", data=picture, headers=headers) as answer:
        neighbor = (await answer.json())["neighbors"][0]
    assert neighbor["image_url"].startswith(f"{PREFIX}/v1/items/birds/")
    for name in ("image_url", "thumbnail_url"):
        async with api.session.get(site.join(URL(neighbor[name])), headers=headers) as answer:
            assert (answer.status, answer.content_type) == (200, "image/jpeg")
    async with api.session.get(site / "openapi.json") as answer:
        assert (await answer.json())["servers"] == [{"url": f"{PREFIX}/"}]


async def test_the_cookie_is_sent_under_the_prefix_alone(api: Api, site: URL) -> None:
    """Other services of the host don't get the key."""
    async with api.session.post(site / "v1/session", json={"key": SECRET}) as answer:
        cookie = answer.cookies["simile_key"]
        assert (answer.status, cookie["path"]) == (204, f"{PREFIX}/")
    async with api.session.delete(site / "v1/session", cookies={"simile_key": SECRET}) as answer:
        assert answer.cookies["simile_key"]["path"] == f"{PREFIX}/"


async def test_the_prefix_without_a_slash_is_redirected(api: Api) -> None:
    """The page's relative addresses need the slash; the query is kept."""
    answer = await api.get(f"{PREFIX}?k=5&item=a%26b", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (308, f"{PREFIX}/?k=5&item=a%26b")


async def test_paths_are_the_same_with_and_without_the_prefix(api: Api) -> None:
    """Rights too: a route asks for its key under both; what only resembles the prefix is none."""
    assert (await api.get("/v1/collections", headers={"X-API-Key": SECRET})).status == 200
    for path in ("/v1/collections", f"{PREFIX}/v1/collections"):
        refused(await api.get(path), 401, "unauthenticated")
    answer = await api.get(f"{PREFIX}s/v1/collections", headers={"X-API-Key": SECRET})
    refused(answer, 404, "unknown_route")


@pytest.mark.parametrize(
    "prefix", ["simile", "/simile/", "/", "//host", "/a b", "/a?b", "/..", "/./a"]
)
def test_what_is_no_prefix_is_refused(prefix: str) -> None:
    """The message names the setting and a right example."""
    with pytest.raises(ValueError, match=r"SIMILE_UPLOAD_PATH_PREFIX: .* not of the form /simile"):
        UploadSettings(path_prefix=prefix)
