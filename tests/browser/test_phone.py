"""The page on a phone, and on screens of other sizes and densities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.acts import overflow, pick, violations
from tests.browser.conftest import watched
from tests.unit.upload.conftest import Api

pytestmark = pytest.mark.browser

HEIGHT = 740


@pytest.fixture
def phone(chromium: Browser, api: Api) -> Iterator[Page]:
    """Yield the page on a small phone with a dense screen."""
    size = {"width": 360, "height": HEIGHT}
    with watched(
        chromium, api.url, viewport=size, has_touch=True, is_mobile=True, device_scale_factor=3
    ) as page:
        yield page


def test_nothing_is_to_be_dropped_on_a_phone(phone: Page) -> None:
    """Choosing and taking a photo are the ways; no words speak of dropping or pasting."""
    expect(phone.get_by_text("Choose an image")).to_be_visible()
    expect(phone.get_by_text("Take a photo")).to_be_visible()
    text = phone.locator("body").inner_text().lower()
    assert "drop" not in text
    assert "paste" not in text


def test_results_are_on_the_first_screen(phone: Page, picture: Path) -> None:
    """The own image is a strip; two rows of results are in sight without scrolling."""
    pick(phone, picture)
    assert phone.evaluate("scrollY") == 0
    own = phone.locator("#query").bounding_box()
    fourth = phone.locator("#grid .frame").nth(3).bounding_box()
    assert own is not None
    assert fourth is not None
    assert own["height"] < 110
    assert fourth["y"] + fourth["height"] < HEIGHT
    assert overflow(phone) == 0
    assert violations(phone) == []


def test_choices_are_behind_one_button(phone: Page, picture: Path) -> None:
    """The button counts the choices that are made; Escape closes them and focuses the button."""
    pick(phone, picture)
    expect(phone.locator("#k")).to_be_hidden()
    options = phone.get_by_role("button", name="Options")
    options.click()
    expect(options).to_have_attribute("aria-expanded", "true")
    phone.get_by_label("Hide near-duplicates").check()
    expect(options).to_have_text("Options (1)")
    assert overflow(phone) == 0
    assert violations(phone) == []
    phone.keyboard.press("Escape")
    expect(phone.locator("#k")).to_be_hidden()
    expect(options).to_be_focused()


def test_the_strip_unfolds_for_a_part(phone: Page, picture: Path) -> None:
    """A tap on the own image enlarges it, to draw on; after the search it is a strip again."""
    pick(phone, picture)
    folded = phone.locator("#stage").bounding_box()
    phone.locator("#stage").tap()
    unfolded = phone.locator("#stage").bounding_box()
    assert folded is not None
    assert unfolded is not None
    assert unfolded["width"] > 2 * folded["width"]
    phone.get_by_role("button", name="Search a part").click()
    assert violations(phone) == []
    phone.get_by_role("button", name="Search this part").click()
    phone.wait_for_url("**box=*")
    expect(phone.locator("#status")).to_contain_text("10 results")
    assert phone.locator("#stage").bounding_box() == folded


def test_thumbnails_are_sharp_on_a_dense_screen(phone: Page, picture: Path) -> None:
    """The browser loads a size with at least as many pixels as the frame has."""
    pick(phone, picture)
    image = phone.locator("#grid .frame img").first
    expect(image).to_have_js_property("complete", value=True)
    assert "size=640" in image.evaluate("one => one.currentSrc")


def test_a_large_screen_is_used(chromium: Browser, api: Api, picture: Path) -> None:
    """On 4K the results reach from one margin to the other, with larger cards."""
    with watched(chromium, api.url, viewport={"width": 3840, "height": 2160}) as page:
        pick(page, picture)
        cards = [one.bounding_box() for one in page.locator("#grid .card").all()]
        right = max(one["x"] + one["width"] for one in cards if one)
        assert right > 3700
        assert all(one and one["width"] > 400 for one in cards)
        assert overflow(page) == 0
