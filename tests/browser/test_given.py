"""Images that are given: kept over a reload, dragged from other pages, and refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser.acts import asked, labels, pick, violations
from tests.browser.conftest import watched
from tests.unit.upload.conftest import Api

pytestmark = pytest.mark.browser

_TRANSFER = """([way, texts]) => {
    const moved = new DataTransfer();
    for (const [type, text] of Object.entries(texts)) moved.setData(type, text);
    window.dispatchEvent(way === "drop"
        ? new DragEvent("drop", { dataTransfer: moved, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: moved }));
}"""
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPj/HwADBwIA"
    "MCbHYQAAAABJRU5ErkJggg=="
)


@pytest.fixture
def page(chromium: Browser, api: Api) -> Iterator[Page]:
    """Yield the page before anything is given."""
    with watched(chromium, api.url, viewport={"width": 1280, "height": 860}) as page:
        yield page


def _give(page: Page, way: str, texts: Mapping[str, str]) -> None:
    page.evaluate(_TRANSFER, [way, texts])


def test_a_query_survives_a_reload(page: Page, picture: Path) -> None:
    """After a reload, and Back from another site, the image and its results are there again."""
    pick(page, picture)
    found = labels(page)
    assert len(asked(page)["upload"]) == 12
    for leave in (page.reload, lambda: (page.goto("about:blank"), page.go_back())):
        leave()
        expect(page.locator("#grid .search")).to_have_count(10)
        expect(page.locator("#query-name")).to_have_text(picture.name)
        expect(page.locator("#query-picture")).to_have_js_property("complete", value=True)
        assert labels(page) == found


def test_several_queries_survive_a_reload(page: Page, pictures: list[Path]) -> None:
    """Each image of a batch is there again."""
    page.locator("#file").set_input_files(pictures[:2])
    expect(page.locator("#status")).to_contain_text("Searched by 2 images")
    page.reload()
    expect(page.locator("#status")).to_contain_text("Searched by 2 images")


def test_old_queries_are_removed(page: Page, picture: Path) -> None:
    """After a day an image is gone from the browser, and the page says what to do."""
    pick(page, picture)
    page.evaluate(
        """() => new Promise((resolve) => {
            indexedDB.open("simile").onsuccess = ({ target }) => {
                const change = target.result.transaction("uploads", "readwrite");
                const table = change.objectStore("uploads");
                table.getAll().onsuccess = ({ target: { result } }) => {
                    for (const one of result) table.put({ ...one, added: one.added - 86400001 });
                };
                table.transaction.oncomplete = () => resolve(target.result.close());
            };
        })"""
    )
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("That image is no longer here")
    expect(page.get_by_role("alert")).to_contain_text("Choose it again")
    kept = """() => new Promise((resolve) => {
        indexedDB.open("simile").onsuccess = ({ target }) => {
            const table = target.result.transaction("uploads").objectStore("uploads");
            table.count().onsuccess = ({ target: { result } }) => resolve(result);
        };
    })"""
    page.wait_for_function(f"({kept})().then((count) => count === 0)")


def test_without_storage_a_query_is_searched_all_the_same(
    chromium: Browser, api: Api, picture: Path
) -> None:
    """A browser may allow no storage, as private windows do."""
    with watched(chromium, api.url) as page:
        page.add_init_script("Object.defineProperty(window, 'indexedDB', { value: undefined })")
        page.reload()
        page.locator("#strip a").first.wait_for()
        pick(page, picture)
        page.reload()
        expect(page.get_by_role("alert")).to_contain_text("upload_gone")


def test_the_earlier_result_stays_when_the_next_image_fails(
    page: Page, picture: Path, tmp_path: Path
) -> None:
    """The problem is above it, the address names the earlier image, and the page goes on."""
    pick(page, picture)
    before, found = page.url, labels(page)
    text = tmp_path / "notes.jpg"
    text.write_text("no image")
    page.locator("#file").set_input_files(text)
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("“notes.jpg” isn\u2019t an image")
    expect(page.locator("#query-name")).to_have_text(picture.name)
    expect(page).to_have_url(before)
    assert labels(page) == found
    assert violations(page) == []
    problem.get_by_role("button", name="Close").click()
    expect(problem).to_be_hidden()
    page.get_by_label("Show").select_option("5")
    expect(page.locator("#grid .search")).to_have_count(5)


def test_what_failed_can_be_tried_again(page: Page, picture: Path) -> None:
    """The button asks for the image that failed, not for the one before."""
    page.route("**/v1/search?*", lambda route: route.abort())
    page.locator("#file").set_input_files(picture)
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("Simile can\u2019t be reached")
    page.unroute("**/v1/search?*")
    problem.get_by_role("button", name="Try again").click()
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#query-name")).to_have_text(picture.name)


def test_back_ends_a_search_that_is_on_its_way(page: Page, picture: Path) -> None:
    """The result before is there again, and the late answer changes nothing."""
    page.locator("#strip a").first.click()
    expect(page.locator("#grid .search")).to_have_count(10)
    name, before = page.locator("#query-name").inner_text(), page.url
    held: list[Route] = []

    def hold(route: Route) -> None:  # Playwright sets attributes on what it calls
        held.append(route)

    page.route("**/v1/search?*", hold)
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#grid[aria-busy]")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(before)
    expect(page.locator("#grid[aria-busy]")).to_have_count(0)
    expect(page.locator("#query-name")).to_have_text(name)
    expect(page.locator("#status")).to_contain_text("10 results")
    page.unroute("**/v1/search?*")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_of_another_site_is_fetched_where_allowed(page: Page, way: str) -> None:
    """Its address is sent, is in the page's address, and survives a reload."""
    address = "https://images.example/cat.jpg"
    answer = page.request.get(f"{page.url}v1/collections/birds/sample").json()
    item = answer["items"][0]
    found = page.request.get(f"{page.url}v1/items/birds/{item['item_id']}/similar").json()
    sent: list[bytes] = []

    def fulfil(route: Route) -> None:
        sent.append(route.request.post_data_buffer or b"")
        route.fulfill(json=found)

    page.route("**/v1/search", fulfil)
    _give(page, way, {"text/uri-list": address, "text/plain": address})
    expect(page.locator("#grid .search")).to_have_count(10)
    expect(page.locator("#query-blank")).to_contain_text("on another site")
    expect(page.locator("#query-name")).to_have_text(address)
    page.reload()
    expect(page.locator("#grid .search")).to_have_count(10)
    assert all(address.encode() in body for body in sent)
    assert len(sent) == 2
    page.unroute("**/v1/search")


def test_an_image_of_another_site_that_is_not_fetched_is_explained(page: Page) -> None:
    """Where Simile fetches nothing, the page says how else to give the image."""
    markup = '<a href="https://images.example/"><img src="https://images.example/cat.jpg"></a>'
    _give(page, "drop", {"text/html": markup, "text/uri-list": "https://images.example/"})
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("That image is on another site")
    expect(problem).to_contain_text("Save the image and drop the file here")
    expect(problem).to_contain_text("url_not_allowed")
    _give(page, "drop", {"text/plain": "just words"})
    expect(problem).to_contain_text("There is no image in that")


def test_an_image_inside_of_a_page_is_taken(page: Page) -> None:
    """Some pages hold small images as text; they are files like others."""
    _give(page, "drop", {"text/html": f'<img src="{_PIXEL}">'})
    expect(page.locator("#query-name")).to_have_text("dragged image")


def test_a_result_that_is_dragged_is_searched_from(page: Page, picture: Path) -> None:
    """A link of the page itself is followed, not fetched as an image."""
    pick(page, picture)
    link = page.locator("#grid .search").nth(3).evaluate("one => one.href")
    _give(page, "drop", {"text/uri-list": link, "text/html": f'<a href="{link}"><img src="x"></a>'})
    expect(page.locator("#query-name")).to_have_text("image-3.jpg")


def test_no_close_match_is_said(page: Page, picture: Path) -> None:
    """Where the answer says so; neighbours below the limit have a quieter bar."""

    def far(route: Route) -> None:
        answer = route.fetch()
        body = {**answer.json(), "no_close_match": True, "close_above": 0.8}
        route.fulfill(response=answer, body=json.dumps(body))

    page.route("**/v1/search?*", far)
    pick(page, picture)
    expect(page.get_by_text("No close match.")).to_be_visible()
    assert 0 < page.locator("#grid .card.far").count() < 10
    assert violations(page) == []
    page.unroute("**/v1/search?*")
    page.locator("#grid .search").first.click()
    expect(page.get_by_text("No close match.")).to_be_hidden()


def test_a_filter_says_when_it_shows_some_of_many(page: Page) -> None:
    """The most common values are offered; the page says of how many."""

    def many(route: Route) -> None:
        answer = route.fetch()
        body = {**answer.json(), "label_values": 4211, "attribute_values": {"number": 12}}
        route.fulfill(response=answer, body=json.dumps(body))

    page.route("**/facets", many)
    page.reload()
    page.locator("#strip a").first.wait_for()
    page.locator("#filter-summary").click()
    expect(page.locator("#facets .hint")).to_have_text("The 2 most common of 4,211 are shown.")
    page.unroute("**/facets")
