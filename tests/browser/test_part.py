"""Tests search by a part of the query image: a box drawn with a pointer, or moved by keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.browser.acts import (
    box,
    colours,
    drag,
    focused,
    labels,
    on_screen,
    overflow,
    pick,
    violations,
)

pytestmark = pytest.mark.browser

_ROTATED = 6
"""The EXIF orientation of an upright camera."""


def _chosen(page: Page, picture: Path) -> None:
    pick(page, picture)
    drag(page, (0.2, 0.3), (0.8, 0.7))
    _searched(page, [0.2, 0.3, 0.6, 0.4])


def _searched(page: Page, expected: list[float]) -> None:
    page.wait_for_url("**box=*")
    expect(page.locator("#status")).to_contain_text("results")
    assert box(page) == pytest.approx(expected, abs=0.01)


def test_a_dragged_box_searches_by_that_part(page: Page, picture: Path) -> None:
    """The box is in the address and in the request, stays visible, and changes the results."""
    pick(page, picture)
    whole = page.locator("#grid .label span").all_inner_texts()
    with page.expect_request("**/v1/search?*box=*"):
        drag(page, (0.2, 0.3), (0.8, 0.7))
    _searched(page, [0.2, 0.3, 0.6, 0.4])
    expect(page.locator("#part")).to_be_visible()
    expect(page.locator("#grid[aria-busy]")).to_have_count(0)
    assert page.locator("#grid .label span").all_inner_texts() != whole


def test_a_box_moves_and_is_resized_by_its_corner(page: Page, picture: Path) -> None:
    """A drag inside the box keeps its size; a drag of a corner keeps the opposite corner."""
    _chosen(page, picture)
    drag(page, (0.5, 0.5), (0.4, 0.6))
    page.wait_for_function("location.search.includes('box=0.1')")
    assert box(page) == pytest.approx([0.1, 0.4, 0.6, 0.4], abs=0.01)
    drag(page, (0.7, 0.8), (0.5, 0.9))
    page.wait_for_function("decodeURIComponent(location.search).endsWith('0.5')")
    assert box(page) == pytest.approx([0.1, 0.4, 0.4, 0.5], abs=0.01)


def test_a_box_cannot_leave_the_image(page: Page, picture: Path) -> None:
    """A drag that ends outside the image ends at its edge."""
    pick(page, picture)
    drag(page, (0.5, 0.5), (1.4, 0.9))
    _searched(page, [0.5, 0.5, 0.5, 0.4])


def test_a_tiny_drag_is_no_box(page: Page, picture: Path) -> None:
    """A drag below 3 % of a side is ignored: nothing is requested, and an earlier box stays."""
    pick(page, picture)
    before = page.url
    drag(page, (0.5, 0.5), (0.52, 0.9))
    assert page.url == before
    expect(page.locator("#part")).to_be_hidden()
    drag(page, (0.2, 0.3), (0.8, 0.7))
    _searched(page, [0.2, 0.3, 0.6, 0.4])
    drag(page, (0.1, 0.1), (0.11, 0.11))
    assert box(page) == pytest.approx([0.2, 0.3, 0.6, 0.4], abs=0.01)


@pytest.mark.parametrize("orientation", [None, _ROTATED])
def test_fractions_are_of_the_upright_image(
    page: Page, tmp_path: Path, picture: Path, orientation: int | None
) -> None:
    """A narrow or a rotated image has its box where it is displayed."""
    with Image.open(picture) as opened:
        flat = orientation is not None
        narrow = opened.resize((600, 150) if flat else (150, 600))
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    narrow.save(tmp_path / "narrow.jpg", exif=exif)
    pick(page, tmp_path / "narrow.jpg")
    stage = page.locator("#stage").bounding_box()
    frame = page.locator("#query-image").bounding_box()
    assert stage is not None
    assert frame is not None
    assert stage["width"] / stage["height"] == pytest.approx(0.25, abs=0.01)
    assert stage["width"] < frame["width"] / 2
    drag(page, (0.0, 0.25), (1.0, 0.75))
    _searched(page, [0.0, 0.25, 1.0, 0.5])


def test_a_finger_draws_a_box(chromium: Browser, site: str, picture: Path) -> None:
    """A finger draws as a mouse does, and does not scroll the page."""
    with chromium.new_context(
        base_url=site, viewport={"width": 390, "height": 844}, has_touch=True
    ) as context:
        page = context.new_page()
        page.goto("/")
        pick(page, picture)
        page.locator("#stage").tap()  # the strip unfolds
        page.locator("#stage").scroll_into_view_if_needed()
        scrolled = page.evaluate("scrollY")
        touch = context.new_cdp_session(page)
        for kind, point in [
            ("touchStart", (0.2, 0.3)),
            ("touchMove", (0.5, 0.5)),
            ("touchMove", (0.8, 0.7)),
            ("touchEnd", None),
        ]:
            x, y = on_screen(page, point or (0, 0))
            points = [] if point is None else [{"x": x, "y": y}]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        _searched(page, [0.2, 0.3, 0.6, 0.4])
        assert page.evaluate("scrollY") == scrolled


def test_keys_place_a_box(page: Page, picture: Path) -> None:
    """A button places a box; arrows move it, Shift resizes it, Enter searches, Escape clears."""
    pick(page, picture)
    page.get_by_role("button", name="Search a part").focus()
    page.keyboard.press("Enter")
    assert focused(page) == "part"
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    expect(page.locator("#part-told")).to_have_text(
        "From the left 23 %, from the top 27 %, width 52 %, height 48 %."
    )
    page.keyboard.press("Enter")
    _searched(page, [0.23, 0.27, 0.52, 0.48])
    assert focused(page) == "part"
    page.keyboard.press("Escape")
    page.wait_for_function("!location.search.includes('box')")
    expect(page.locator("#part")).to_be_hidden()
    assert focused(page) == "part-search"


def test_a_box_is_named_for_a_screen_reader(page: Page, picture: Path) -> None:
    """The box has an accessible name that lists its keys."""
    pick(page, picture)
    page.get_by_role("button", name="Search a part").click()
    part = page.get_by_role("application", name="The part to search by")
    expect(part).to_be_focused()
    expect(part).to_have_accessible_description(
        "Arrow keys move the box, Shift and arrow keys resize it, Enter searches, Escape clears it."
    )


def test_a_placed_box_is_searched_by_its_button(page: Page, picture: Path) -> None:
    """Without a keyboard a button searches by the placed box."""
    pick(page, picture)
    page.get_by_role("button", name="Search a part").click()
    page.get_by_role("button", name="Search this part").click()
    _searched(page, [0.25, 0.25, 0.5, 0.5])
    expect(page.get_by_role("button", name="Search this part")).to_be_hidden()


def test_the_whole_image_is_restored(page: Page, picture: Path) -> None:
    """A button restores the whole image, and Back then shows the box again."""
    _chosen(page, picture)
    page.get_by_role("button", name="Whole image").click()
    expect(page.locator("#part")).to_be_hidden()
    assert box(page) == []
    page.go_back()
    expect(page.locator("#part")).to_be_visible()
    _searched(page, [0.2, 0.3, 0.6, 0.4])
    page.go_back()
    expect(page.locator("#part")).to_be_hidden()


def test_a_part_of_an_item_can_be_linked(page: Page) -> None:
    """The address of a part of an item opens it on another visit; neighbours are searched whole."""
    page.locator("#strip a").first.click()
    expect(page.locator("#grid .search")).to_have_count(10)
    drag(page, (0.2, 0.3), (0.8, 0.7))
    _searched(page, [0.2, 0.3, 0.6, 0.4])
    expect(page.locator("#grid[aria-busy]")).to_have_count(0)
    found, address = labels(page), page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#part")).to_be_visible()
    expect(page.locator("#grid .search")).to_have_count(10)
    assert labels(page) == found
    page.locator("#grid .search").first.click()
    expect(page.locator("#part")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_violations(page: Page, picture: Path, scheme: str) -> None:
    """Axe finds nothing on a box that is placed, and on one that is searched by."""
    colours(page, scheme)
    pick(page, picture)
    page.get_by_role("button", name="Search a part").click()
    assert violations(page) == []
    page.keyboard.press("Enter")
    page.wait_for_url("**box=*")
    expect(page.locator("#status")).to_contain_text("results")
    assert violations(page) == []


def test_the_page_fits_a_small_phone(page: Page, picture: Path) -> None:
    """At 320 pixels nothing scrolls sideways."""
    page.set_viewport_size({"width": 320, "height": 640})
    pick(page, picture)
    page.get_by_role("button", name="Search a part").click()
    assert overflow(page) == 0
