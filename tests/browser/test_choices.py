"""Tests filter, near-duplicates and further pages on a collection with artists and copies."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from services.local.sample import CLASSES, draw_sample
from tests.browser.acts import asked, colours, focused, labels, overflow, pick, violations
from tests.support.running import simile_up

pytestmark = pytest.mark.browser

_PER_CLASS = 8
_COPIES = 2
_OF_ANN = _PER_CLASS * len(CLASSES) // 2
"""Every other drawing is by Ann; the copies have no artist."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a running Simile with the gallery."""
    folder = tmp_path_factory.mktemp("site")
    _write_gallery(folder / "gallery")
    with simile_up(
        folder / "up.log", "--root", str(folder / "root"), "--images", str(folder / "gallery")
    ) as (url, _):
        yield url


def _write_gallery(folder: Path) -> None:
    """Write drawings by two artists, the first fish with two copies of lower quality."""
    draw_sample(folder, per_class=_PER_CLASS, seed=21)
    rows = [
        (drawing.relative_to(folder), drawing.parent.name, ("Ann", "Bo")[place % 2])
        for place, drawing in enumerate(sorted(folder.glob("*/*.jpg")))
    ]
    with Image.open(folder / "fish" / "001.jpg") as fish:
        for number in range(_COPIES):
            copy = Path("fish") / f"copy{number}.jpg"
            fish.save(folder / copy, quality=60 - number)
            rows.append((copy, "fish", ""))
    with (folder / "manifest.csv").open("w", newline="") as listing:
        writer = csv.writer(listing)
        writer.writerow(["path", "label", "artist"])
        writer.writerows(rows)


def _open_filter(page: Page) -> None:
    page.locator("#filter-summary").click()


def _linked(page: Page, filter_text: str) -> None:
    page.locator("#strip a").first.click()
    expect(page.locator("#grid .search")).to_have_count(10)
    page.goto(f"{page.url}&filter={quote(filter_text)}")


def _refuse(route: Route, status: int, code: str) -> None:
    problem = {"title": "No", "detail": "not now", "code": code}
    route.fulfill(status=status, content_type="application/problem+json", body=json.dumps(problem))


def test_a_label_can_be_chosen(page: Page, picture: Path) -> None:
    """Only images with the label are found, the address and the status show it; Back undoes it."""
    pick(page, picture)
    _open_filter(page)
    page.get_by_label(f"boat {_PER_CLASS}").check()
    expect(page.locator("#status")).to_contain_text(f"of {_PER_CLASS} that pass the filter")
    assert labels(page) == ["boat"] * _PER_CLASS
    assert json.loads(asked(page)["filter"]) == {"label": ["boat"]}
    expect(page.locator("#filter-summary")).to_have_text("Filter: boat")
    page.go_back()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#filter-summary")).to_have_text("Filter")
    assert "fish" in labels(page)


def test_labels_and_attributes_go_together(page: Page, picture: Path) -> None:
    """Two labels match either; an attribute narrows them further."""
    pick(page, picture)
    _open_filter(page)
    page.get_by_label(f"boat {_PER_CLASS}").check()
    page.get_by_label(f"city {_PER_CLASS}").check()
    expect(page.locator("#status")).to_contain_text(f"of {2 * _PER_CLASS} that pass")
    page.get_by_label(f"Ann {_OF_ANN}").check()
    expect(page.locator("#status")).to_contain_text(f"of {_PER_CLASS} that pass")
    expect(page.locator("#filter-summary")).to_have_text("Filter: 3 chosen")
    page.get_by_role("button", name="Clear the filter").click()
    expect(page.locator("#status")).to_contain_text("10 results,")
    assert "filter" not in asked(page)


def test_the_keyboard_chooses_without_losing_focus(page: Page, picture: Path) -> None:
    """Space ticks boxes in turn while answers change; Escape closes the panel."""
    pick(page, picture)
    page.locator("#filter-summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_contain_text("that pass the filter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    expect(page.locator("#filter-summary")).to_have_text("Filter: 2 chosen")
    expect(page.locator(".chip input").nth(1)).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(".filter-panel")).to_be_hidden()
    assert focused(page) == "filter-summary"


def test_a_filter_chosen_first_holds_for_the_search(page: Page, picture: Path) -> None:
    """A filter chosen on the empty page applies to the first image."""
    _open_filter(page)
    page.get_by_label(f"boat {_PER_CLASS}").check()
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#grid .search")).to_have_count(_PER_CLASS)
    assert set(labels(page)) == {"boat"}


def test_a_filter_that_nothing_passes_says_so(page: Page) -> None:
    """A link with unknown labels shows them as chosen, and they can be cleared."""
    _linked(page, '{"label": ["whale"]}')
    expect(page.locator("#empty")).to_contain_text("No image passes the filter")
    expect(page.locator("#status")).to_have_text("No image passes the filter.")
    expect(page.locator("#filter-summary")).to_have_text("Filter: whale")
    page.locator("#empty-clear").click()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#empty")).to_be_hidden()


def test_a_filter_without_a_choice_is_not_offered(page: Page) -> None:
    """A collection with a single label and no attributes offers no filter."""
    one = {"labels": [{"value": "boat", "count": 3}], "attributes": {}}
    page.route("**/facets", lambda route: route.fulfill(json=one))
    page.reload()
    page.locator("#strip a").first.wait_for()
    expect(page.locator("#filter")).to_be_hidden()
    page.unroute("**/facets")


def test_near_duplicates_are_folded(page: Page, picture: Path) -> None:
    """A fish represents its copies, shows how many, and its link shows them."""
    pick(page, picture)
    expect(page.locator(".folded")).to_have_count(0)
    page.get_by_label("Hide near-duplicates").check()
    folded = page.get_by_role("link", name=f"{_COPIES} near-duplicates of fish: show them too")
    expect(folded).to_have_text(f"+{_COPIES} near-duplicates")
    assert asked(page)["collapse"] == "0.25"
    folded.click()
    expect(page.get_by_label("Hide near-duplicates")).not_to_be_checked()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#status")).to_contain_text("10 results")
    nearest = page.locator("#grid .label span").all_inner_texts()[:_COPIES]
    assert all(0.95 < float(similarity) <= 1 for similarity in nearest)


def test_a_checked_choice_is_kept_in_the_address(page: Page, picture: Path) -> None:
    """The keyboard ticks the box; Back unticks it."""
    pick(page, picture)
    page.get_by_label("Hide near-duplicates").focus()
    page.keyboard.press("Space")
    page.wait_for_url("**collapse=0.25*")
    expect(page.locator("#status")).to_contain_text("10 results")
    assert focused(page) == "collapse"
    page.go_back()
    expect(page.get_by_label("Hide near-duplicates")).not_to_be_checked()


def test_show_more_continues_to_the_end(page: Page, picture: Path) -> None:
    """The next page is appended without repeats, and its first card gets the focus."""
    pick(page, picture)
    _open_filter(page)
    page.get_by_label(f"Ann {_OF_ANN}").check()
    expect(page.locator("#status")).to_contain_text(f"of {_OF_ANN} that pass")
    page.keyboard.press("Escape")
    more = page.get_by_role("button", name="Show more")
    for count in range(20, _OF_ANN + 10, 10):
        shown = min(count, _OF_ANN)
        more.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#grid .search")).to_have_count(shown)
        expect(page.locator("#status")).to_contain_text(f"{shown} results")
        expect(page.locator("#grid .search").nth(count - 10)).to_be_focused()
    expect(more).to_be_hidden()
    shown_items = page.locator("#grid .card").evaluate_all(
        "all => all.map(one => one.dataset.item)"
    )
    assert len(set(shown_items)) == _OF_ANN


def test_a_changed_collection_says_so_and_starts_again(page: Page, picture: Path) -> None:
    """The results stay; a button starts a new search."""
    pick(page, picture)
    page.route("**/v1/search?*cursor=*", lambda route: _refuse(route, 410, "cursor_expired"))
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#more-problem")).to_contain_text("The collection has changed meanwhile")
    expect(page.locator("#grid .search")).to_have_count(10)
    page.unroute("**/v1/search?*cursor=*")
    page.get_by_role("button", name="Start again").click()
    expect(page.locator("#status")).to_contain_text("10 results")
    expect(page.locator("#more-problem")).to_be_hidden()
    expect(page.get_by_role("button", name="Show more")).to_be_visible()


def test_a_page_that_fails_can_be_tried_again(page: Page, picture: Path) -> None:
    """A refused page keeps the earlier results and shows its code; a retry continues."""
    pick(page, picture)
    page.route("**/v1/search?*cursor=*", lambda route: _refuse(route, 503, "overloaded"))
    page.get_by_role("button", name="Show more").click()
    expect(page.locator("#more-problem")).to_contain_text("overloaded")
    page.unroute("**/v1/search?*cursor=*")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#grid .search")).to_have_count(20)
    expect(page.locator("#more-problem")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_violations(page: Page, picture: Path, scheme: str) -> None:
    """Axe finds nothing on the open filter, folded cards, a failed page and an empty answer."""
    colours(page, scheme)
    pick(page, picture)
    page.get_by_label("Hide near-duplicates").check()
    page.locator(".folded").first.wait_for()
    _open_filter(page)
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.route("**/v1/search?*cursor=*", lambda route: _refuse(route, 410, "cursor_expired"))
    page.get_by_role("button", name="Show more").click()
    page.locator("#more-problem").wait_for()
    assert violations(page) == []
    page.unroute("**/v1/search?*cursor=*")
    _linked(page, '{"label": ["whale"]}')
    page.locator("#empty").wait_for()
    assert violations(page) == []


def test_the_page_fits_a_small_phone(page: Page, picture: Path) -> None:
    """At 320 pixels nothing scrolls sideways, with the filter open and cards folded."""
    page.set_viewport_size({"width": 320, "height": 640})
    pick(page, picture)
    page.get_by_role("button", name="Options").click()
    page.get_by_label("Hide near-duplicates").check()
    page.locator(".folded").first.wait_for()
    _open_filter(page)
    assert overflow(page) == 0
