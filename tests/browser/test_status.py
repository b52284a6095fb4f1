"""The status page: what it shows, to whom, and that everybody can read it."""

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
    """An upload service that asks for keys; what is behind it is a stand-in."""
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
def door(chromium: Browser, api: Api) -> Iterator[Page]:
    """The status page of somebody who has not signed in."""
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
def status(door: Page) -> Page:
    """The page of an operator."""
    _sign_in(door, OPERATOR)
    door.locator("#board").wait_for()
    return door


def _note_policy(faults: list[str], line: str) -> None:
    if "Content Security Policy" in line:
        faults.append(line)


def _sign_in(page: Page, key: str) -> None:
    page.get_by_label("API key").fill(key)
    page.keyboard.press("Enter")


def _search(page: Page, picture: bytes) -> None:
    """One query that is answered, as from elsewhere."""
    headers = {"X-API-Key": READER, "Content-Type": "image/jpeg"}
    assert page.request.post("/v1/search", data=picture, headers=headers).ok


def _refresh(page: Page) -> None:
    """Ask now, rather than in five seconds."""
    with page.expect_response("**/v1/status"):
        page.get_by_label("Refresh every 5 seconds").set_checked(checked=False)
        page.get_by_label("Refresh every 5 seconds").set_checked(checked=True)


def test_an_operator_sees_how_it_is(status: Page) -> None:
    """The verdict first; then queries by outcome, stages, queues, collections."""
    expect(status.get_by_role("status")).to_have_text("Ready")
    _search(status, plain_jpeg((9, 80, 40)))
    _refresh(status)
    expect(status.locator("#codes tbody tr").first).to_contain_text("ok")
    expect(status.locator("#stages")).to_contain_text("search")
    expect(status.locator("#queues")).to_contain_text("simile.embed")
    expect(status.locator("#queues td")).to_have_text("4")
    expect(status.locator("#collections tbody tr")).to_contain_text("birds")
    expect(status.locator("#numbers")).to_contain_text("Canaries")


def test_what_fails_is_said_in_words(status: Page, api: Api) -> None:
    """A failure is announced in words, not by colour alone, and so is its end."""
    failing = {"reason": "the broker is away"}
    api.telemetry.health.ready_when("broker", lambda: failing.get("reason"))
    _refresh(status)
    expect(status.get_by_role("status")).to_have_text("Not ready")
    expect(status.locator("#reasons")).to_contain_text("broker: the broker is away")
    found = violations(status)
    failing.clear()
    _refresh(status)
    expect(status.get_by_role("status")).to_have_text("Ready")
    expect(status.locator("#reasons")).to_be_hidden()
    assert found == []


def test_a_key_that_may_only_read_is_told_so(door: Page) -> None:
    """The page asks again, with the reason, and takes an operator's key."""
    _sign_in(door, READER)
    expect(door.get_by_role("alert")).to_contain_text("lacks the scope admin")
    expect(door.locator("#board")).to_be_hidden()
    assert violations(door) == []
    _sign_in(door, OPERATOR)
    expect(door.get_by_role("status")).to_have_text("Ready")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_read_it(status: Page, scheme: str) -> None:
    """Axe finds nothing, and a small phone shows all of it, tables by scrolling within them."""
    colours(status, scheme)
    _search(status, plain_jpeg((200, 80, 40)))
    _refresh(status)
    expect(status.locator("#stages")).to_contain_text("search")
    assert violations(status) == []
    status.set_viewport_size({"width": 320, "height": 640})
    assert overflow(status) == 0
    assert violations(status) == []


def test_keys_alone_are_enough(status: Page) -> None:
    """Tab leads to the choice, the way out, and each table, so that wide ones can be scrolled."""
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


def test_who_does_not_answer_is_told(status: Page) -> None:
    """Old numbers go: they would look like new ones."""
    status.route("**/v1/status", lambda route: route.abort())
    status.locator("#follow").uncheck()
    status.locator("#follow").check()
    expect(status.get_by_role("alert")).to_contain_text("unreachable")
    expect(status.locator("#board")).to_be_hidden()
    status.unroute("**/v1/status")
    expect(status.locator("#board")).to_be_visible(timeout=10_000)
    expect(status.get_by_role("alert")).to_have_count(0)


def test_the_search_page_leads_there(chromium: Browser, tmp_path: Path) -> None:
    """A quiet link at its end; where no keys are set nobody is asked for one."""
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
