"""Runs Chromium on the page of a real `simile up` with the drawn sample collection."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from services.local.sample import draw_sample
from services.upload.settings import UploadSettings
from tests.support.running import simile_up
from tests.support.threaded import threaded
from tests.unit.upload.conftest import Api, running_api

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the volume of the running Simile."""
    return tmp_path_factory.mktemp("site")


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[str]:
    """Yield the URL of a running Simile."""
    with simile_up(root / "up.log", "--root", str(root)) as (url, _):
        yield url


# Not for the session: Playwright keeps an event loop running, and no other can run then.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Yield a browser; without an installed browser the tests skip, and fail in CI."""
    if not CHROMIUM.exists():
        message = "Chromium is not installed: run `make system`"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Draw a picture of each class that is in no collection, named as its class."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_sample(folder / "unseen", per_class=1, seed=99)
    return [
        drawn.rename(folder / f"{drawn.parent.name}.jpg")
        for drawn in sorted((folder / "unseen").glob("*/*.jpg"))
    ]


@pytest.fixture(scope="session")
def picture(pictures: list[Path]) -> Path:
    """Return a fish that is in no collection."""
    return next(one for one in pictures if one.stem == "fish")


@pytest.fixture
def page(chromium: Browser, site: str) -> Iterator[Page]:
    """Yield the loaded page; fail the test for console errors and requests to other hosts."""
    with watched(chromium, site, viewport={"width": 1280, "height": 860}) as page:
        yield page


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """Yield an upload service with stand-ins behind it, which starts in a moment."""
    folder = tmp_path_factory.mktemp("api")
    with threaded(running_api(folder, UploadSettings(port=0))) as running:
        yield running


@contextlib.contextmanager
def watched(chromium: Browser, site: str, **options: Any) -> Iterator[Page]:
    """Yield the loaded page; fail for console errors and requests to other hosts."""
    with chromium.new_context(base_url=site, **options) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda line: _complain(complaints, line.type, line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: _complain_of_address(complaints, request.url, site))
        page.goto("./")
        page.locator("#strip a").first.wait_for()
        yield page
        assert complaints == []


def _complain(complaints: list[str], kind: str, text: str) -> None:
    # Chromium logs each failed answer as an error; the page shows those itself.
    if kind in {"error", "warning"} and not text.startswith("Failed to load resource"):
        complaints.append(text)


def _complain_of_address(complaints: list[str], address: str, site: str) -> None:
    if not address.startswith((site, "blob:", "data:")):
        complaints.append(f"asked {address}")
