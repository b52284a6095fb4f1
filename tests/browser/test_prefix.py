"""The page under a path of a proxy: nothing that it asks for is outside of the path."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.browser.acts import pick
from tests.browser.conftest import watched
from tests.support.reverse_proxy import reverse_proxy
from tests.support.threaded import threaded
from tests.unit.upload.conftest import running_api

pytestmark = pytest.mark.browser

PREFIX = "/simile"


@contextlib.asynccontextmanager
async def _behind_proxy(
    folder: Path, settings: UploadSettings, *, strip: bool
) -> AsyncIterator[str]:
    async with (
        running_api(folder, settings) as api,
        reverse_proxy(api.url, PREFIX, strip=strip) as url,
    ):
        yield url


@pytest.mark.parametrize("strip", [False, True], ids=["setting", "proxy removes it"])
def test_everything_works_under_a_path(
    chromium: Browser,
    tmp_path: Path,
    picture: Path,
    strip: bool,  # noqa: FBT001 (a parameter)
) -> None:
    """Search, enlarging, Back, reload, other pages; with or without the proxy removing it."""
    settings = UploadSettings(port=0, path_prefix="" if strip else PREFIX)
    with (
        threaded(_behind_proxy(tmp_path, settings, strip=strip)) as url,
        watched(chromium, url) as page,
    ):
        pick(page, picture)
        assert page.url.startswith(f"{url}?")
        page.wait_for_function("document.querySelector('#grid img').naturalWidth > 0")
        page.locator("#grid .enlarge").first.click()
        expect(page.locator("#lightbox-picture")).to_have_js_property("naturalWidth", 600)
        page.go_back()
        expect(page.locator("#lightbox")).to_be_hidden()
        page.reload()
        expect(page.locator("#grid .search")).to_have_count(10)
        for name in ("Status", "API"):
            page.get_by_role("link", name=name, exact=True).click()
            page.get_by_role("link", name="Simile", exact=True).click()
            page.locator("#strip a").first.wait_for()
        assert page.url == url


def test_signing_in_under_a_path(chromium: Browser, tmp_path: Path) -> None:
    """The cookie belongs to the path; signing out removes it."""
    secret, key = new_key("page", [Scope.READ])
    (tmp_path / "keys").write_text(key.line)
    settings = UploadSettings(port=0, path_prefix=PREFIX, api_keys_file=tmp_path / "keys")
    with (
        threaded(_behind_proxy(tmp_path, settings, strip=False)) as url,
        chromium.new_context(base_url=url) as context,
    ):
        page = context.new_page()
        page.goto("./")
        page.get_by_label("API key").fill(secret)
        page.get_by_role("button", name="Continue").click()
        page.locator("#strip a").first.wait_for()
        (cookie,) = context.cookies()
        assert cookie.get("path") == f"{PREFIX}/"
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#sign-in")).to_be_visible()
        assert context.cookies() == []
