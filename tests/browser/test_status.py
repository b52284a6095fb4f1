"""Tests the status page: its content, its access control, its accessibility."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from prometheus_client import Gauge

from services.shared.telemetry import metric_names
from services.upload.security.api_keys import Scope, new_key
from services.upload.settings import UploadSettings
from tests.browser.acts import colours, focused, overflow, violations
from tests.support.pictures import plain_jpeg
from tests.support.threaded import threaded
from tests.unit.upload.conftest import Api, running_api

pytestmark = pytest.mark.browser

READER, READER_KEY = new_key("reader", [Scope.READ])
OPERATOR, OPERATOR_KEY = new_key("operator", [Scope.ADMIN])


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Run an upload service with API keys; the services behind it are stand-ins."""
    folder = tmp_path_factory.mktemp("status")
    keys = folder / "keys"
    keys.write_text(f"{READER_KEY.line}\n{OPERATOR_KEY.line}\n")
    with threaded(running_api(folder, UploadSettings(port=0, api_keys_file=keys))) as running:
        waiting = Gauge(
            metric_names.QUEUE_MESSAGES, "", ["queue"], registry=running.telemetry.registry
        )
        waiting.labels("simile.embed").set(4)
        yield running


@pytest.fixture
def signed_out(chromium: Browser, api: Api) -> Iterator[Page]:
    """Yield the status page of somebody who has not signed in."""
    with chromium.new_context(base_url=api.url, viewport={"width": 1280, "height": 860}) as context:
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: _note_policy(faults, line.text))
        page.goto("/status")
        page.locator("#sign-in").wait_for()
        yield page
        assert faults == []


@pytest.fixture
def status(signed_out: Page) -> Page:
    """Return the page, signed in as an operator."""
    _sign_in(signed_out, OPERATOR)
    signed_out.locator("#board").wait_for()
    return signed_out


def _note_policy(faults: list[str], line: str) -> None:
    if "Content Security Policy" in line:
        faults.append(line)


def _sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")


def _search(page: Page, picture: bytes) -> None:
    """Send a query that is answered, as from elsewhere."""
    headers = {"X-API-Key": READER, "Content-Type": "image/jpeg"}
    assert page.request.post("/v1/search", data=picture, headers=headers).ok


def _refresh(page: Page) -> None:
    """Refresh now instead of in five seconds."""
    with page.expect_response("**/v1/status"):
        page.get_by_label("Refresh every 5 seconds").set_checked(checked=False)
        page.get_by_label("Refresh every 5 seconds").set_checked(checked=True)


def test_an_operator_sees_the_state(status: Page) -> None:
    """The page shows the overall state, then queries by outcome, stages, queues, collections."""
    expect(status.get_by_role("status")).to_have_text("Ready")
    _search(status, plain_jpeg((9, 80, 40)))
    _refresh(status)
    expect(status.locator("#codes tbody tr").first).to_contain_text("ok")
    expect(status.locator("#stages")).to_contain_text("search")
    expect(status.locator("#queues")).to_contain_text("simile.embed")
    expect(status.locator("#queues td")).to_have_text("4")
    expect(status.locator("#collections tbody tr")).to_contain_text("birds")
    expect(status.locator("#versions tbody tr")).to_contain_text("answers")
    expect(status.locator("#numbers")).to_contain_text("Canaries")
    expect(status.get_by_role("link", name="API")).to_have_attribute("href", "docs")


def test_a_failure_is_described_in_words(status: Page, api: Api) -> None:
    """A failure is announced in words, not only by colour, and so is its end."""
    failing = {"reason": "the broker is unavailable"}
    api.telemetry.health.ready_when("broker", lambda: failing.get("reason"))
    _refresh(status)
    expect(status.get_by_role("status")).to_have_text("Not ready")
    expect(status.locator("#reasons")).to_contain_text("broker: the broker is unavailable")
    found = violations(status)
    failing.clear()
    _refresh(status)
    expect(status.get_by_role("status")).to_have_text("Ready")
    expect(status.locator("#reasons")).to_be_hidden()
    assert found == []


def test_a_key_for_reading_is_refused_with_the_reason(signed_out: Page) -> None:
    """The page asks again, with the reason, and accepts an operator's key."""
    _sign_in(signed_out, READER)
    expect(signed_out.get_by_role("alert")).to_contain_text("lacks the scope admin")
    expect(signed_out.locator("#board")).to_be_hidden()
    assert violations(signed_out) == []
    _sign_in(signed_out, OPERATOR)
    expect(signed_out.get_by_role("status")).to_have_text("Ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_status_page_is_accessible(status: Page, scheme: str) -> None:
    """Axe finds nothing; a small phone shows all, and wide tables scroll by themselves."""
    colours(status, scheme)
    _search(status, plain_jpeg((200, 80, 40)))
    _refresh(status)
    expect(status.locator("#stages")).to_contain_text("search")
    assert violations(status) == []
    status.set_viewport_size({"width": 320, "height": 640})
    assert overflow(status) == 0
    assert violations(status) == []


def test_the_keyboard_suffices(status: Page) -> None:
    """Tab reaches the choice, the sign-out, and each table, so that wide ones can be scrolled."""
    seen = []
    status.locator("#follow").focus()
    for _ in range(6):
        seen.append(
            focused(status)
            or status.evaluate("document.activeElement.getAttribute('aria-labelledby')")
        )
        status.keyboard.press("Tab")
    assert seen == [
        "follow", "sign-out", "codes-title", "stages-title", "queues-title", "collections-title",
    ]  # fmt: skip
    status.locator("#follow").focus()
    status.keyboard.press("Space")
    expect(status.locator("#follow")).not_to_be_checked()


def test_a_silent_server_is_reported(status: Page) -> None:
    """Stale numbers are removed: they would look current."""
    status.route("**/v1/status", lambda route: route.abort())
    status.locator("#follow").uncheck()
    status.locator("#follow").check()
    expect(status.get_by_role("alert")).to_contain_text("unreachable")
    expect(status.locator("#board")).to_be_hidden()
    status.unroute("**/v1/status")
    expect(status.locator("#board")).to_be_visible(timeout=10_000)
    expect(status.get_by_role("alert")).to_have_count(0)


def test_the_search_page_links_to_the_status_page(chromium: Browser, tmp_path: Path) -> None:
    """The search page links to the status page; without keys it opens at once."""
    with (
        threaded(running_api(tmp_path, UploadSettings(port=0))) as api,
        chromium.new_context(base_url=api.url) as context,
    ):
        page = context.new_page()
        page.goto("/")
        page.locator("#strip a").first.wait_for()
        page.get_by_role("link", name="Status").click()
        expect(page.get_by_role("status")).to_have_text("Ready")
        expect(page.locator("#sign-in")).to_be_hidden()
        page.get_by_role("link", name="Simile").click()
        page.locator("#strip a").first.wait_for()
