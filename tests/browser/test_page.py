"""Tests the web page in a real browser on a running Simile."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, Route, expect

from services.local.sample import CLASSES
from tests.browser.acts import colours, focused, give, labels, overflow, pick, violations

pytestmark = pytest.mark.browser


def _refuse(route: Route) -> None:
    problem = {
        "title": "Too much is going on",
        "detail": "256 queries are on their way already",
        "code": "overloaded",
    }
    route.fulfill(
        status=503,
        headers={"Retry-After": "1", "Content-Type": "application/problem+json"},
        body=json.dumps(problem),
    )


def test_the_empty_page_shows_how_to_start(page: Page) -> None:
    """A first visit shows where to drop an image, accepted formats, and images to start from."""
    expect(page.get_by_text("Drop an image here")).to_be_visible()
    expect(page.locator("#limits")).to_contain_text("JPEG")
    expect(page.locator("#strip a")).to_have_count(24)
    expect(page.locator("#result")).to_be_hidden()


def test_a_picked_image_shows_ten_neighbours_of_its_class(page: Page, picture: Path) -> None:
    """Neighbours have label, similarity and details; most are of the image's class."""
    pick(page, picture)
    assert labels(page).count("fish") >= 8
    expect(page.locator("#status")).to_contain_text("10 results")
    expect(page.locator("#status")).to_have_text(re.compile(r"^10 results, \d+\.\d\d s$"))
    expect(page.locator("#facts")).to_be_hidden()
    page.get_by_text("Details").click()
    expect(page.locator("#facts")).to_contain_text("efficientnet_lite0@")
    expect(page.locator("#facts")).to_contain_text(re.compile(r"model \d+\.\d ms"))
    expect(page.locator("#query-image img")).to_be_visible()


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_given_image_is_searched(
    page: Page, picture: Path, way: Literal["drop", "paste"]
) -> None:
    """Dropping a file anywhere on the page searches by it, and so does pasting."""
    give(page, way, [picture])
    expect(page.locator("#grid .search")).to_have_count(10)


def test_a_click_on_a_neighbour_searches_from_it_and_back_returns(
    page: Page, picture: Path
) -> None:
    """The address names the item; Back shows the uploaded image's neighbours again."""
    pick(page, picture)
    before, uploaded = labels(page), page.url
    page.locator("#grid .search").nth(2).click()
    expect(page).not_to_have_url(uploaded)
    assert "item=" in page.url
    expect(page.locator("#status")).to_contain_text("10 results")
    page.go_back()
    expect(page).to_have_url(uploaded)
    expect(page.locator("#status")).to_contain_text("10 results")
    assert labels(page) == before


def test_a_result_can_be_linked(page: Page) -> None:
    """The address of an item's neighbours opens them on another visit."""
    page.locator("#strip a").first.click()
    expect(page.locator("#grid .search")).to_have_count(10)
    found, address = labels(page), page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#grid .search")).to_have_count(10)
    assert labels(page) == found


def test_more_neighbours_can_be_requested(page: Page, picture: Path) -> None:
    """The number of neighbours is a choice, and stays in the address."""
    pick(page, picture)
    page.get_by_label("Show").select_option("20")
    expect(page.locator("#grid .search")).to_have_count(20)
    assert "k=20" in page.url


def test_the_keyboard_suffices(page: Page) -> None:
    """Tab reaches the file field and the images; Enter on an image searches from it."""
    page.keyboard.press("Tab")
    reached = set()
    for _ in range(12):
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert {"home", "k", "file", "A"} <= reached
    page.locator("#strip a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#grid .search")).to_have_count(10)
    assert focused(page) == "result-title"


def test_waiting_shows_placeholders(page: Page, picture: Path) -> None:
    """Until the answer arrives there are as many placeholders as requested neighbours."""
    held: list[Route] = []

    def hold(route: Route) -> None:  # Playwright sets attributes on it: no built-in method
        held.append(route)

    page.route("**/v1/search*", hold)
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#grid .waiting")).to_have_count(10)
    expect(page.locator("#status")).to_have_text("Searching…")
    held[0].continue_()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#grid .waiting")).to_have_count(0)


def test_a_refusal_says_what_to_do_with_its_code(page: Page, picture: Path) -> None:
    """A 503 is explained in a person's words, with when to retry and its code."""
    page.route("**/v1/search*", _refuse)
    page.locator("#file").set_input_files(picture)
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("Many people are searching right now")
    expect(problem).to_contain_text("Try again in 1 s")
    expect(problem).to_contain_text("overloaded")
    assert violations(page) == []


def test_a_file_that_is_not_an_image_is_refused(page: Page, tmp_path: Path) -> None:
    """The page names the file and the formats that it may have, and still works."""
    text = tmp_path / "text.jpg"
    text.write_text("this is no image")
    page.locator("#file").set_input_files(text)
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("“text.jpg” isn\u2019t an image that can be read here")
    expect(problem).to_contain_text("Choose one of these formats: JPEG, PNG, WebP")
    expect(problem).to_contain_text("unsupported_format")
    page.locator("#strip a").first.click()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.get_by_role("alert")).to_be_hidden()


def test_a_file_that_is_too_large_is_not_sent(page: Page, tmp_path: Path) -> None:
    """The limit is checked before the upload."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(16 * 2**20))
    page.locator("#file").set_input_files(large)
    expect(page.get_by_role("alert")).to_contain_text("“large.jpg” is too large")
    expect(page.get_by_role("alert")).to_contain_text("It has 16 MB; 15 MB are accepted")
    expect(page.get_by_role("alert")).to_contain_text("image_too_large")
    assert not any("/v1/search" in address for address in asked)


def test_a_lost_server_is_reported(page: Page, picture: Path) -> None:
    """When the server does not answer, the page says so, and suggests a check."""
    page.route("**/v1/search*", lambda route: route.abort())
    page.locator("#file").set_input_files(picture)
    expect(page.get_by_role("alert")).to_contain_text("unreachable")
    page.unroute("**/v1/search*")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_violations(page: Page, picture: Path, scheme: str) -> None:
    """Axe finds nothing on the empty page and on a result, in light and in dark."""
    colours(page, scheme)
    assert violations(page) == []
    pick(page, picture)
    assert violations(page) == []


def test_dark_is_dark(page: Page) -> None:
    """The page follows the system's colours."""
    page.emulate_media(color_scheme="dark")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in background.removeprefix("rgb(").rstrip(")").split(",")]
    assert max(channels) < 64


@pytest.mark.parametrize("width", [320, 768, 3840])
def test_every_width_fits(page: Page, picture: Path, width: int) -> None:
    """From a small phone to 4K nothing scrolls sideways, and a touch target is large enough."""
    page.set_viewport_size({"width": width, "height": 740})
    pick(page, picture)
    assert overflow(page) == 0
    for box in page.locator("#grid .search").all()[:3]:
        bounds = box.bounding_box()
        assert bounds is not None
        assert min(bounds["width"], bounds["height"]) >= 44


def test_every_class_of_the_sample_is_shown(page: Page) -> None:
    """The strip to start from spreads over the whole collection."""
    names = page.locator("#strip a").evaluate_all("all => all.map(one => one.ariaLabel)")
    assert {name.removeprefix("Search from ") for name in names} == set(CLASSES)
