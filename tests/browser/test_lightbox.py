"""Results one at a time: the enlarged picture, which file it is, and the ways on from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.acts import asked, colours, overflow, pick, violations
from tests.browser.conftest import watched
from tests.unit.upload.conftest import Api

pytestmark = pytest.mark.browser

PHONE = {"width": 360, "height": 740}


@pytest.fixture
def page(chromium: Browser, api: Api, picture: Path) -> Iterator[Page]:
    """Yield a page that shows ten results."""
    with watched(chromium, api.url, viewport={"width": 1280, "height": 860}) as page:
        pick(page, picture)
        yield page


def _enlarge(page: Page, place: int) -> None:
    page.locator("#grid .enlarge").nth(place).click()
    expect(page.locator("#lightbox")).to_be_visible()
    expect(page.locator("#lightbox-place")).to_have_text(f"{place + 1} of 10")


def test_a_card_names_its_file_and_attributes(page: Page) -> None:
    """The path is on the card; similarity has two digits and no percent sign."""
    card = page.locator("#grid .card").nth(3)
    expect(card.locator(".path")).to_have_text("image-3.jpg")
    expect(card.locator(".attributes")).to_have_text("3")
    expect(card.locator(".attributes")).to_have_attribute("title", "number: 3")
    expect(card.locator(".label span")).to_have_text("0.85")
    assert "no probability" in (card.locator(".label span").get_attribute("title") or "")


def test_a_result_is_enlarged_with_its_file_and_attributes(page: Page) -> None:
    """The picture is larger than a thumbnail; path, similarity and attributes are below it."""
    _enlarge(page, 2)
    expect(page.locator("#lightbox-picture")).to_have_js_property("naturalWidth", 600)
    expect(page.locator("#lightbox-title")).to_have_text("image even")
    expect(page.locator("#lightbox-path")).to_have_text("image-2.jpg")
    expect(page.locator("#lightbox-facts")).to_have_text("similarity0.90number2")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "image-2.jpg"


def test_arrows_lead_to_the_others_and_escape_back(page: Page) -> None:
    """By keys and by buttons, as far as there are results; the last one gets the focus."""
    before = page.url
    _enlarge(page, 0)
    expect(page.locator("#lightbox-before")).to_have_attribute("aria-disabled", "true")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#lightbox-path")).to_have_text("image-1.jpg")
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#lightbox-path")).to_have_text("image-2.jpg")
    page.get_by_role("button", name="Previous").click()
    expect(page.locator("#lightbox-path")).to_have_text("image-1.jpg")
    page.keyboard.press("Escape")
    expect(page.locator("#lightbox")).to_be_hidden()
    expect(page).to_have_url(before)
    expect(page.locator("#grid .enlarge").nth(1)).to_be_focused()


def test_back_closes_it_and_a_link_opens_it(page: Page) -> None:
    """The address names what is enlarged; nothing is searched again."""
    searches: list[str] = []
    page.on("request", lambda request: searches.append(request.url))
    _enlarge(page, 4)
    linked = page.url
    page.go_back()
    expect(page.locator("#lightbox")).to_be_hidden()
    expect(page.locator("#grid .search")).to_have_count(10)
    page.go_forward()
    expect(page.locator("#lightbox-path")).to_have_text("image-4.jpg")
    assert not any("/v1/search" in address for address in searches)
    page.goto("about:blank")
    page.goto(linked)
    expect(page.locator("#lightbox-path")).to_have_text("image-4.jpg")
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#lightbox")).to_be_hidden()
    expect(page).not_to_have_url(re.compile(r"[?&]view="))


def test_the_focus_stays_inside(page: Page) -> None:
    """Tab goes round the buttons and links of the enlarged picture."""
    _enlarge(page, 3)
    reached = set()
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.closest('dialog, body').tagName"))
    # Past the last one the browser's own controls have the focus, then the first one again.
    assert reached <= {"DIALOG", "BODY"}
    outside = page.evaluate("document.activeElement.closest('main')")
    assert outside is None


def test_the_search_goes_on_from_it(page: Page) -> None:
    """The enlarged result is the next query; Back shows it enlarged again."""
    _enlarge(page, 5)
    page.get_by_role("link", name="Search from this").click()
    expect(page.locator("#lightbox")).to_be_hidden()
    expect(page.locator("#query-name")).to_have_text("image-5.jpg")
    assert set(asked(page)) == {"collection", "item", "k"}
    page.go_back()
    expect(page.locator("#lightbox-path")).to_have_text("image-5.jpg")


def test_a_swipe_leads_on(chromium: Browser, api: Api, picture: Path) -> None:
    """To the left shows the next one, to the right the one before; a tap shows none."""
    with watched(chromium, api.url, viewport=PHONE, has_touch=True, is_mobile=True) as page:
        pick(page, picture)
        page.locator("#grid .enlarge").nth(1).tap()
        touch = page.context.new_cdp_session(page)
        for start, end, place in ((300, 80, 3), (80, 300, 2), (200, 190, 2)):
            for kind, x in (("touchStart", start), ("touchMove", end), ("touchEnd", None)):
                points = [] if x is None else [{"x": x, "y": 300}]
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
            expect(page.locator("#lightbox-place")).to_have_text(f"{place} of 10")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_enlarged_result_is_accessible(page: Page, scheme: str) -> None:
    """Axe finds nothing, and a small phone shows all of it."""
    colours(page, scheme)
    _enlarge(page, 3)
    assert violations(page) == []
    page.set_viewport_size({"width": 320, "height": 640})
    assert overflow(page) == 0
    for button in page.locator("#lightbox .button").all():
        bounds = button.bounding_box()
        assert bounds is not None
        assert bounds["y"] + bounds["height"] <= 640
    assert violations(page) == []
