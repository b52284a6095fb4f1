"""Tests the page of the API: its content, its search, its links, its accessibility."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.browser.acts import colours, overflow, violations
from tests.support.pictures import plain_jpeg
from tests.support.threaded import threaded
from tests.unit.upload.conftest import OPENAPI, Api, running_api

pytestmark = pytest.mark.browser

OPERATIONS = [operation for methods in OPENAPI["paths"].values() for operation in methods.values()]
_, KEY = new_key("reader", [Scope.READ])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Run an upload service with an API key, which the page does not need."""
    folder = tmp_path_factory.mktemp("docs")
    keys = folder / "keys"
    keys.write_text(f"{KEY.line}\n")
    with threaded(running_api(folder, UploadSettings(port=0, api_keys_file=keys))) as running:
        yield running


@pytest.fixture
def page(chromium: Browser, api: Api) -> Iterator[Page]:
    """Yield the loaded page; fail the test for errors and requests to other hosts."""
    with chromium.new_context(base_url=api.url, viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text))
        page.on("request", lambda request: _note_address(faults, request.url, api.url))
        page.goto("/docs")
        page.locator("#schemas").wait_for()
        yield page
        assert faults == []


def _note_address(faults: list[str], address: str, site: str) -> None:
    if not address.startswith(site):
        faults.append(address)


def test_every_route_schema_and_code_is_shown(page: Page) -> None:
    """A route shows its parameters, body, answers with their codes, and an example."""
    expect(page.locator("details.operation")).to_have_count(len(OPERATIONS))
    schemas = OPENAPI["components"]["schemas"]
    expect(page.locator("#schemas details")).to_have_count(len(schemas))
    codes = len(schemas["Code"]["enum"]) - 1  # no route is described with a wrong method
    expect(page.locator("#codes dt")).to_have_count(codes)
    search = page.locator("#search")
    search.locator("summary").click()
    for text in ("max_distance", "0 to 2", "image_url", "unsupported_format", '"neighbors"'):
        expect(search).to_contain_text(text)


def test_words_find_routes_and_links_open_schemas(page: Page) -> None:
    """All words must be in a route; a link to a schema opens it."""
    page.get_by_label("Find").fill("IF-NONE-MATCH jpeg")
    expect(page.locator("details.operation:visible")).to_have_count(1)
    expect(page.get_by_role("status")).to_have_text(f"1 of {len(OPERATIONS)} routes")
    page.get_by_label("Find").fill("")
    expect(page.locator("details.operation:visible")).to_have_count(len(OPERATIONS))
    page.locator("#embed summary").click()
    page.locator("#embed").get_by_role("link", name="EmbedAnswer").click()
    expect(page.locator("#schema-EmbedAnswer")).to_contain_text("dimension")
    assert page.locator("#schema-EmbedAnswer").evaluate("details => details.open")


def test_a_link_from_elsewhere_opens_the_route(page: Page) -> None:
    """The address of a route has its operationId."""
    page.goto("/docs#findSimilar")
    expect(page.locator("#findSimilar .body")).to_be_visible()


def test_the_commands_for_curl_work(page: Page, tmp_path: Path) -> None:
    """The command of a search, run as it is shown, gets an answer of the API: a key is needed."""
    page.locator("#search summary").click()
    command = page.locator("#search pre").first.inner_text()
    (tmp_path / "photo.jpg").write_bytes(plain_jpeg((9, 9, 9)))
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["code"] == "unauthenticated"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(page: Page, scheme: str) -> None:
    """Axe finds nothing, also with routes open and on a small phone, where nothing overflows."""
    colours(page, scheme)
    assert violations(page) == []
    for name in ("search", "getStatus", "beginSession", "schema-Status"):
        page.locator(f"[id={name}] > summary").click()
    page.set_viewport_size({"width": 360, "height": 640})
    assert overflow(page) == 0
    assert violations(page) == []


def test_the_keyboard_suffices(page: Page) -> None:
    """Enter opens and closes a route."""
    page.locator("#search > summary").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#search .body")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#search .body")).to_be_hidden()
