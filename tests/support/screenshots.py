"""Takes the README's picture: python -m tests.support.screenshots URL IMAGE OUT.png."""

from __future__ import annotations

import sys

from playwright.sync_api import sync_playwright


def take(url: str, image: str, out: str) -> None:
    """Save a screenshot of the page at `url` after a search by `image`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1180, "height": 720})
        page.goto(url)
        page.locator("#file").set_input_files(image)
        page.locator("#grid .search").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.screenshot(path=out)
        browser.close()


if __name__ == "__main__":
    take(*sys.argv[1:4])
