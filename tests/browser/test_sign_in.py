"""The page where Simile asks for an API key: a cookie opens everything, images included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.browser.acts import colours, focused, overflow, pick, violations
from tests.support.threaded import threaded
from tests.unit.upload.conftest import running_api

pytestmark = pytest.mark.browser

KEY, KNOWN = new_key("page", [Scope.READ])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an upload service that knows one API key; what is behind it is a stand-in."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(KNOWN.line)
    with threaded(running_api(folder, UploadSettings(port=0, api_keys_file=keys))) as api:
        yield api.url


@pytest.fixture
def door(chromium: Browser, guarded: str) -> Iterator[Page]:
    """The page of somebody who has not signed in."""
    with chromium.new_context(base_url=guarded, viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: _note_policy(faults, line.text))
        page.goto("/")
        page.locator("#sign-in").wait_for()
        yield page
        assert faults == []


def _note_policy(faults: list[str], line: str) -> None:
    # Refusals of the API are errors of the console, too, and are meant here.
    if "Content Security Policy" in line:
        faults.append(line)


def _sign_in(page: Page) -> None:
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Continue").click()
    page.locator("#strip a").first.wait_for()


def test_the_page_asks_for_a_key_and_for_nothing_else(door: Page) -> None:
    """Only the question is there, with the focus on its field."""
    expect(door.locator("#sign-in")).to_be_visible()
    expect(door.locator("#drop")).to_be_hidden()
    expect(door.locator("#choices")).to_be_hidden()
    assert focused(door) == "key"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_question_is_accessible(door: Page, scheme: str) -> None:
    """Axe finds nothing, with a refusal shown as well; a small phone shows all of it."""
    colours(door, scheme)
    assert violations(door) == []
    door.get_by_label("API key").fill("wrong")
    door.keyboard.press("Enter")
    expect(door.get_by_role("alert")).to_contain_text("unauthenticated")
    assert violations(door) == []
    door.set_viewport_size({"width": 320, "height": 640})
    assert overflow(door) == 0


def test_a_known_key_opens_the_page(door: Page, picture: Path) -> None:
    """Thumbnails load, a search is answered, a reload asks no more; no script holds the key."""
    _sign_in(door)
    first = door.locator("#strip img").first
    first.scroll_into_view_if_needed()
    door.wait_for_function(
        "one => one.complete && one.naturalWidth > 0", arg=first.element_handle()
    )
    pick(door, picture)
    assert violations(door) == []
    door.goto("/")
    door.locator("#strip a").first.wait_for()
    expect(door.locator("#sign-in")).to_be_hidden()
    kept = door.evaluate("document.cookie + JSON.stringify({...localStorage, ...sessionStorage})")
    assert KEY not in kept
    (cookie,) = door.context.cookies()
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")


def test_signing_out_forgets_the_key(door: Page) -> None:
    """The cookie is gone, and the page asks again."""
    _sign_in(door)
    door.get_by_role("button", name="Sign out").click()
    expect(door.locator("#sign-in")).to_be_visible()
    assert door.context.cookies() == []
    expect(door.get_by_role("button", name="Sign out")).to_be_hidden()


def test_a_key_that_is_known_no_more_is_asked_for_again(door: Page) -> None:
    """In the middle of the work, without a reload; then it goes on where it was."""
    _sign_in(door)
    door.context.clear_cookies()
    door.locator("#strip a").first.click()
    expect(door.locator("#sign-in")).to_be_visible()
    asked = door.url
    _sign_in(door)
    expect(door.locator("#grid .search")).to_have_count(10)
    assert door.url == asked


def test_an_anonymous_page_asks_for_nothing(chromium: Browser, tmp_path: Path) -> None:
    """Where no keys are set, there is no question and no way to sign out."""
    with (
        threaded(running_api(tmp_path, UploadSettings(port=0))) as api,
        chromium.new_context(base_url=api.url) as context,
    ):
        page = context.new_page()
        page.goto("/")
        page.locator("#strip a").first.wait_for()
        expect(page.locator("#sign-in")).to_be_hidden()
        expect(page.locator("#sign-out")).to_be_hidden()
