"""Tests the page during a build in another process: it shows progress, then results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from services.local.sample import draw_sample
from services.shared.volume.build_progress import BUILDING, PROGRESS, BuildProgress
from services.shared.volume.volume import Volume
from tests.browser.acts import overflow, violations
from tests.support.pictures import plain_jpeg
from tests.support.running import log_lines, ready_url, start, wait_until
from tests.support.volume import items, publish_version, unit_vectors

pytestmark = pytest.mark.browser

COMES_ALIVE_MS = 60_000
NAME = "further"


@pytest.fixture
def building(page: Page, root: Path) -> Iterator[Path]:
    """Yield the progress file of a collection without a version; remove it after the test."""
    home = Volume(root).home(NAME)
    yield home / BUILDING
    page.goto("about:blank")
    (home / "ACTIVE").unlink(missing_ok=True)
    (home / BUILDING / PROGRESS).unlink(missing_ok=True)


def _write(building: Path, done: int, total: int | None, eta_seconds: float | None = None) -> None:
    """Write progress as a builder does; each call is a heartbeat."""
    BuildProgress(
        stage="listing" if total is None else "embedding", done=done, total=total, failed=2,
        eta_seconds=eta_seconds, build="other", beat=time.time_ns(),
        written_unix_ms=time.time_ns() // 1_000_000,
    ).write(building)  # fmt: skip


def _publish(root: Path, count: int, number: int) -> None:
    """Publish a version whose images exist."""
    images = root.parent / "further-images"
    images.mkdir(exist_ok=True)
    listed = items(count)
    for item in listed:
        (images / item.path).write_bytes(plain_jpeg((40, 20 * item.position, 90), (40, 30)))
    publish_version(
        Volume(root), NAME, unit_vectors(count), listed, images_root=images, number=number
    )


def test_a_first_build_is_shown_and_then_its_images(page: Page, root: Path, building: Path) -> None:
    """The page shows text and a bar instead of an error; after the build, images to start from."""
    _write(building, 812, 4210, 20.4)
    page.goto(f"/?collection={NAME}")
    title = page.locator("#building-title")
    expect(title).to_have_text("Preparing your collection: 812 of 4,210 images, about 20 s")
    expect(page.locator("#building-told")).to_contain_text("2 files left out")
    expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", "19")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.get_by_text("Drop an image here")).to_be_hidden()
    assert violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert overflow(page) == 0
    _write(building, 4000, 4210)
    expect(title).to_contain_text("4,000 of 4,210 images", timeout=COMES_ALIVE_MS)
    _publish(root, 3, 0)
    (building / PROGRESS).unlink()
    expect(page.locator("#strip a")).to_have_count(3, timeout=COMES_ALIVE_MS)
    expect(page.get_by_text("Drop an image here")).to_be_visible()
    expect(title).to_be_hidden()


def test_a_rebuild_is_shown_beside_the_search(page: Page, root: Path, building: Path) -> None:
    """The page keeps the version before, says so, and switches to the next by itself."""
    _publish(root, 3, 1)
    _write(building, 0, None)
    page.goto(f"/?collection={NAME}")
    expect(page.locator("#building-title")).to_have_text(f"Updating {NAME}: listing")
    expect(page.locator("#strip a")).to_have_count(3)
    assert violations(page) == []
    _publish(root, 5, 2)
    (building / PROGRESS).unlink()
    expect(page.locator("#strip a")).to_have_count(5, timeout=COMES_ALIVE_MS)
    expect(page.locator("#building-title")).to_be_hidden()


def test_the_page_of_a_first_up_never_shows_an_error(chromium: Browser, tmp_path: Path) -> None:
    """Opened as soon as the port answers, before `ready`, the page never shows an error."""
    draw_sample(tmp_path / "pictures", per_class=1)
    log = tmp_path / "up.log"
    up = ["-m", "services", "up", "--port", "0", "--root", str(tmp_path / "root")]
    process = start("up", [*up, "--images", str(tmp_path / "pictures")], log, {})
    try:
        wait_until(lambda: _serving(log) is not None, "serving", process)
        assert ready_url(log) is None
        page = chromium.new_page(base_url=_serving(log))
        alerts: list[str] = []

        def note(text: str) -> None:  # Playwright sets attributes on it: no built-in method
            alerts.append(text)

        page.expose_function("alerted", note)
        page.add_init_script("""addEventListener("DOMContentLoaded", () =>
          new MutationObserver(() => {
            const box = document.getElementById("problem");
            if (!box.hidden) alerted(box.textContent);
          }).observe(document.body, { subtree: true, attributes: true, childList: true }))""")
        page.goto("/")
        expect(page.locator("#strip a")).to_have_count(12, timeout=COMES_ALIVE_MS)
        expect(page.get_by_text("Drop an image here")).to_be_visible()
        page.close()
        assert alerts == []
    finally:
        process.stop()


def _serving(log: Path) -> str | None:
    """Return the URL in the log line of the open port, or None."""
    lines = (line for line in log_lines(log) if line.get("action") == "serving")
    return next((str(line["url"]) for line in lines), None)


def test_an_empty_volume_is_no_error(page: Page) -> None:
    """The page shows the command that builds an index, and continues once there is one."""
    limits = page.request.get("/v1/collections").json()["limits"]
    nothing = {"collections": [], "default_collection": None, "limits": limits}
    page.route("**/v1/collections", lambda route: route.fulfill(json=nothing))
    page.goto("/")
    expect(page.locator("#building-title")).to_have_text("There is nothing to search yet")
    expect(page.locator("#building-told")).to_contain_text("simile index build FOLDER")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert violations(page) == []
    page.unroute("**/v1/collections")
    expect(page.locator("#strip a")).to_have_count(24, timeout=COMES_ALIVE_MS)
