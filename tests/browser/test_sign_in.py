"""Tests the sign-in page for an API key, whose cookie gives access to images as well."""

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
    """Yield the URL of an upload service with an API key; the services behind it are stand-ins."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = folder / "keys"
    keys.write_text(KNOWN.line)
    with threaded(running_api(folder, UploadSettings(port=0, api_keys_file=keys))) as api:
        yield api.url


@pytest.fixture
def signed_out(chromium: Browser, guarded: str) -> Iterator[Page]:
    """Yield the page of somebody who has not signed in."""
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
    # Refusals of the API are console errors, too, and are expected here.
    if "Content Security Policy" in line:
        faults.append(line)


def _sign_in(page: Page) -> None:
    page.get_by_label("API key").fill(KEY)
    page.get_by_role("button", name="Continue").click()
    page.locator("#strip a").first.wait_for()


def test_the_page_shows_only_the_key_form(signed_out: Page) -> None:
    """Only the form is shown, with the focus on its field."""
    expect(signed_out.locator("#sign-in")).to_be_visible()
    expect(signed_out.locator("#drop")).to_be_hidden()
    expect(signed_out.locator("#choices")).to_be_hidden()
    assert focused(signed_out) == "key"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_key_form_is_accessible(signed_out: Page, scheme: str) -> None:
    """Axe finds nothing, also beside a refusal; a small phone shows all of it."""
    colours(signed_out, scheme)
    assert violations(signed_out) == []
    signed_out.get_by_label("API key").fill("wrong")
    signed_out.keyboard.press("Enter")
    expect(signed_out.get_by_role("alert")).to_contain_text("unauthenticated")
    assert violations(signed_out) == []
    signed_out.set_viewport_size({"width": 320, "height": 640})
    assert overflow(signed_out) == 0


def test_a_known_key_opens_the_page(signed_out: Page, picture: Path) -> None:
    """Thumbnails load, a search is answered, a reload needs no key; no script can read it."""
    _sign_in(signed_out)
    first = signed_out.locator("#strip img").first
    first.scroll_into_view_if_needed()
    signed_out.wait_for_function(
        "one => one.complete && one.naturalWidth > 0", arg=first.element_handle()
    )
    pick(signed_out, picture)
    assert violations(signed_out) == []
    signed_out.goto("/")
    signed_out.locator("#strip a").first.wait_for()
    expect(signed_out.locator("#sign-in")).to_be_hidden()
    kept = signed_out.evaluate(
        "document.cookie + JSON.stringify({...localStorage, ...sessionStorage})"
    )
    assert KEY not in kept
    (cookie,) = signed_out.context.cookies()
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")


def test_signing_out_forgets_the_key(signed_out: Page) -> None:
    """The cookie is deleted, and the page asks for a key again."""
    _sign_in(signed_out)
    signed_out.get_by_role("button", name="Sign out").click()
    expect(signed_out.locator("#sign-in")).to_be_visible()
    assert signed_out.context.cookies() == []
    expect(signed_out.get_by_role("button", name="Sign out")).to_be_hidden()


def test_a_revoked_key_is_asked_for_again(signed_out: Page) -> None:
    """A revoked key is asked for again without a reload; then the page continues."""
    _sign_in(signed_out)
    signed_out.context.clear_cookies()
    signed_out.locator("#strip a").first.click()
    expect(signed_out.locator("#sign-in")).to_be_visible()
    asked = signed_out.url
    _sign_in(signed_out)
    expect(signed_out.locator("#grid .search")).to_have_count(10)
    assert signed_out.url == asked


def test_a_page_without_keys_asks_for_nothing(chromium: Browser, tmp_path: Path) -> None:
    """Without keys there is no form and no way to sign out."""
    with (
        threaded(running_api(tmp_path, UploadSettings(port=0))) as api,
        chromium.new_context(base_url=api.url) as context,
    ):
        page = context.new_page()
        page.goto("/")
        page.locator("#strip a").first.wait_for()
        expect(page.locator("#sign-in")).to_be_hidden()
        expect(page.locator("#sign-out")).to_be_hidden()
