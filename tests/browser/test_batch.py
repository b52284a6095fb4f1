"""Tests a search by several images: a row each, with its neighbours or its problem."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.acts import colours, focused, give, overflow, violations

pytestmark = pytest.mark.browser

_ROWS = "#rows .row"


def _searched(page: Page, rows: int) -> None:
    expect(page.locator(_ROWS)).to_have_count(rows)
    expect(page.locator("#status")).to_contain_text("Searched by")


def _pick(page: Page, pictures: list[Path]) -> None:
    page.locator("#file").set_input_files(pictures)
    _searched(page, len(pictures))


def test_picked_images_get_a_row_each(page: Page, pictures: list[Path]) -> None:
    """A row has the image, its name, and its most similar items."""
    _pick(page, pictures[:3])
    expect(page.locator("#status")).to_have_text("Searched by 3 images.")
    for row, picture in zip(page.locator(_ROWS).all(), pictures[:3], strict=True):
        expect(row.locator(".row-query img")).to_be_visible()
        expect(row.locator(".row-query")).to_contain_text(picture.name)
        found = row.locator(".row-found .search span").all_inner_texts()
        assert found.count(picture.stem) >= 8


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_dropped_and_pasted_images_get_rows(
    page: Page, pictures: list[Path], way: Literal["drop", "paste"]
) -> None:
    """Several files are accepted by drop and by paste."""
    give(page, way, pictures[:2])
    _searched(page, 2)


def test_one_bad_image_has_its_problem(page: Page, pictures: list[Path], tmp_path: Path) -> None:
    """The other images are answered; the status says how many were."""
    text = tmp_path / "text.jpg"
    text.write_text("this is no image")
    _pick(page, [pictures[0], text, pictures[1]])
    rows = page.locator(_ROWS)
    expect(rows.nth(1)).to_contain_text("unsupported_format")
    expect(rows.nth(0).locator(".row-found .search")).to_have_count(10)
    expect(rows.nth(2).locator(".row-found .search")).to_have_count(10)
    expect(page.locator("#status")).to_have_text("Searched by 2 images. 1 could not be.")


def test_a_row_opens_as_a_search_and_back_returns(page: Page, pictures: list[Path]) -> None:
    """A click on a row's query image searches by it alone; Back shows the rows again."""
    _pick(page, pictures[:3])
    page.locator(f"{_ROWS} .row-query").nth(1).click()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#batch")).to_be_hidden()
    page.go_back()
    _searched(page, 3)
    expect(page.locator("#result")).to_be_hidden()


def test_a_neighbour_of_a_row_is_searched_from(page: Page, pictures: list[Path]) -> None:
    """Search from a neighbour works in a row, too."""
    _pick(page, pictures[:2])
    page.locator(f"{_ROWS} .row-found .search").nth(3).click()
    expect(page.locator("#grid .search")).to_have_count(10)
    assert "item=" in page.url


def test_the_keyboard_suffices(page: Page, pictures: list[Path]) -> None:
    """The focus goes to the rows, Tab to the first image, and Enter searches by it."""
    _pick(page, pictures[:2])
    assert focused(page) == "batch-title"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#grid .search")).to_have_count(10)
    assert "upload=" in page.url


def test_more_than_sixteen_images_are_cut_with_a_notice(page: Page, pictures: list[Path]) -> None:
    """The first sixteen images are searched by, and the status says so."""
    page.locator("#file").set_input_files([*pictures, *pictures[:6]])
    _searched(page, 16)
    expect(page.locator("#status")).to_contain_text("Of the 18 given, only the first 16")


def test_an_image_that_is_too_large_is_not_sent(
    page: Page, pictures: list[Path], tmp_path: Path
) -> None:
    """The image gets the problem that the server would answer; the others are sent."""
    large = tmp_path / "large.jpg"
    large.write_bytes(bytes(16 * 2**20))
    with page.expect_request("**/v1/search/batch") as sent:
        _pick(page, [large, *pictures[:2]])
    expect(page.locator(_ROWS).first).to_contain_text("image_too_large")
    assert b"large.jpg" not in (sent.value.post_data_buffer or b"")


def test_more_bytes_than_a_request_holds_take_several(page: Page, pictures: list[Path]) -> None:
    """Images beyond the size of a request are sent as two batches."""

    def lower(route: Route) -> None:
        answer = route.fetch()
        limits = answer.json()
        limits["limits"]["batch_max_bytes"] = sum(one.stat().st_size for one in pictures[:2])
        route.fulfill(response=answer, body=json.dumps(limits))

    page.route("**/v1/collections", lower)
    page.reload()
    page.locator("#strip a").first.wait_for()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    _pick(page, pictures[:3])
    expect(page.locator(f"{_ROWS} .row-found .search")).to_have_count(30)
    assert len([address for address in sent if address.endswith("/v1/search/batch")]) == 2
    page.unroute("**/v1/collections")


def test_a_changed_choice_searches_again(page: Page, pictures: list[Path]) -> None:
    """The number of neighbours applies to every row."""
    _pick(page, pictures[:2])
    page.get_by_label("Show").select_option("5")
    expect(page.locator(f"{_ROWS} .row-found .search")).to_have_count(10)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_violations(
    page: Page, pictures: list[Path], tmp_path: Path, scheme: str
) -> None:
    """Axe finds nothing on rows of neighbours and of a problem."""
    colours(page, scheme)
    text = tmp_path / "text.jpg"
    text.write_text("this is no image")
    _pick(page, [pictures[0], text])
    assert violations(page) == []


def test_the_page_fits_a_small_phone(page: Page, pictures: list[Path]) -> None:
    """At 320 pixels only the strips scroll sideways, not the page."""
    page.set_viewport_size({"width": 320, "height": 640})
    _pick(page, pictures[:2])
    assert overflow(page) == 0
