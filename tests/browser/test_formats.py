"""Tests items in formats that browsers don't show: the page shows their thumbnails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from services.local.sample import draw_sample
from tests.browser.acts import drag, pick
from tests.support.pictures import encoded, scene
from tests.support.running import simile_up

pytestmark = pytest.mark.browser

_WIDTH = 360
"""Of every drawing of the sample."""

FORMATS = {"heic": "HEIF", "tif": "TIFF", "jp2": "JPEG2000"}


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Yield the URL of a Simile whose collection holds an image in each of these formats."""
    folder = root / "items"
    draw_sample(folder, per_class=3)
    for name, drawn in zip(FORMATS, sorted(folder.glob("*/001.jpg")), strict=False):
        with Image.open(drawn) as picture:
            (folder / name).mkdir()
            (folder / name / f"item.{name}").write_bytes(encoded(picture, FORMATS[name]))
    (folder / "large").mkdir()
    scene(900, 600).save(folder / "large" / "large.jpg")
    limit = {"SIMILE_IMAGE_MAX_PIXELS": "200000"}
    options = ("--images", str(folder), "--root", str(root))
    with simile_up(root / "up.log", *options, environment=limit) as (url, _):
        yield url


def _item(page: Page, site: str, label: str) -> dict[str, str]:
    items = page.request.get(f"{site}/v1/collections/items/sample?count=100").json()["items"]
    return next(one for one in items if one["label"] == label)


@pytest.mark.parametrize("name", FORMATS)
def test_an_item_that_browsers_do_not_show_has_a_thumbnail(
    page: Page, site: str, name: str
) -> None:
    """The thumbnail replaces the item, and a part of it can be searched."""
    item = _item(page, site, name)
    page.goto(f"/?item={item['item_id']}")
    expect(page.locator("#query-picture")).to_have_js_property("naturalWidth", _WIDTH)
    expect(page.locator("#query-blank")).to_be_hidden()
    expect(page.get_by_role("button", name="Search a part")).to_be_visible()
    with page.expect_request("**/v1/search?*box=*"):
        drag(page, (0.2, 0.3), (0.8, 0.7))
    expect(page.locator("#status")).to_contain_text("results")
    expect(page.locator("#query-picture")).to_have_js_property("naturalWidth", _WIDTH)


@pytest.mark.parametrize("name", FORMATS)
def test_a_query_that_browsers_do_not_show_has_a_preview(
    page: Page, tmp_path: Path, picture: Path, name: str
) -> None:
    """The server makes the picture that the page shows, and a part of it can be searched."""
    query = tmp_path / f"query.{name}"
    with Image.open(picture) as opened:
        query.write_bytes(encoded(opened, FORMATS[name]))
    pick(page, query)
    expect(page.locator("#query-picture")).to_have_js_property("naturalWidth", _WIDTH)
    expect(page.locator("#query-blank")).to_be_hidden()
    with page.expect_request("**/v1/search?*box=*"):
        drag(page, (0.2, 0.3), (0.8, 0.7))
    expect(page.locator("#status")).to_contain_text("results")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(picture.read_bytes()[:300])
    pick(page, broken)
    expect(page.get_by_role("alert")).to_contain_text("broken.jpg")
    expect(page.locator("#query-picture")).to_have_js_property("naturalWidth", _WIDTH)
    expect(page.locator("#query-blank")).to_be_hidden()


def test_too_many_pixels_are_named_in_megapixels(page: Page, tmp_path: Path) -> None:
    """The message names the file, its size, the limit, and what to do."""
    scene(900, 600).save(tmp_path / "poster.jpg")
    page.locator("#file").set_input_files(tmp_path / "poster.jpg")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("“poster.jpg” has too many pixels")
    expect(problem).to_contain_text("It has 0.54 megapixels; 0.2 megapixels are accepted.")
    expect(problem).to_contain_text("Save a smaller copy")


def test_a_part_of_an_item_larger_than_callers_may_send_is_searched(page: Page, site: str) -> None:
    """For items larger than a query may be, the page sends the thumbnail."""
    page.goto(f"/?item={_item(page, site, 'large')['item_id']}")
    expect(page.get_by_role("button", name="Search a part")).to_be_visible()
    with page.expect_response("**/v1/search?*box=*") as answered:
        drag(page, (0.2, 0.3), (0.8, 0.7))
    assert answered.value.status == 200
    expect(page.locator("#status")).to_contain_text("results")
