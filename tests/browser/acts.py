"""Drives the page as a person does, and reads what it shows; asserts nothing by itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

Point = tuple[float, float]
"""Fractions of the query image's width and height."""

_GIVE = """([way, files]) => {
    const moved = new DataTransfer();
    for (const [name, encoded] of files) {
        const bytes = Uint8Array.from(atob(encoded), (one) => one.charCodeAt(0));
        moved.items.add(new File([bytes], name, { type: "image/jpeg" }));
    }
    window.dispatchEvent(way === "drop"
        ? new DragEvent("drop", { dataTransfer: moved, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: moved }));
}"""


def pick(page: Page, picture: Path) -> None:
    """Choose a file, and wait for its ten neighbours."""
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#grid:not([aria-busy]) .search")).to_have_count(10)


def give(page: Page, way: Literal["drop", "paste"], pictures: Sequence[Path]) -> None:
    """Drop or paste files."""
    files = [(one.name, base64.b64encode(one.read_bytes()).decode()) for one in pictures]
    page.evaluate(_GIVE, [way, files])


def drag(page: Page, begin: Point, end: Point) -> None:
    """Draw with the mouse on the query image."""
    begin, end = on_screen(page, begin), on_screen(page, end)
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def on_screen(page: Page, point: Point) -> Point:
    """Return the position of a point of the query image in the window."""
    area = page.locator("#stage").bounding_box()
    assert area is not None
    return area["x"] + point[0] * area["width"], area["y"] + point[1] * area["height"]


def asked(page: Page) -> dict[str, str]:
    """Return the parameters in the page's address."""
    return dict(parse_qsl(urlsplit(page.url).query))


def box(page: Page) -> list[float]:
    """Return the box of the address: left, top, width, height; empty for the whole image."""
    return [float(number) for number in asked(page).get("box", "").split(",") if number]


def labels(page: Page) -> list[str]:
    """Return the labels of the neighbours, nearest first."""
    return page.locator("#grid .label b").all_inner_texts()


def focused(page: Page) -> str:
    """Return the id of the focused element."""
    name: str = page.evaluate("document.activeElement.id")
    return name


def colours(page: Page, scheme: str) -> None:
    """Show the page in light or dark without transitions, whose colours would not count."""
    chosen: Literal["dark", "light"] = "dark" if scheme == "dark" else "light"
    page.emulate_media(color_scheme=chosen, reduced_motion="reduce")


def violations(page: Page) -> list[str]:
    """Return the accessibility violations that axe finds."""
    results = Axe().run(page)
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in results.response["violations"]]


def overflow(page: Page) -> int:
    """Return how many pixels the page scrolls sideways."""
    pixels: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return pixels
