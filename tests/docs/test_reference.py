"""Checks that the generated tables in docs/ are current."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import openapi, reference

PAGES = sorted(reference.DOCS.glob("*.md"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_current(path: Path) -> None:
    """Rendering the page again changes nothing; otherwise run `make docs`."""
    page = path.read_text(encoding="utf-8")
    assert reference.render(page) == page


def test_every_table_has_its_page() -> None:
    """Each table that the code can generate is in docs/ exactly once."""
    found = [name for path in PAGES for name in reference.blocks_in(path.read_text())]
    assert sorted(found) == sorted(reference.BLOCKS)


def test_the_names_of_the_settings_are_current() -> None:
    """The list of known settings is current; otherwise run `make docs`."""
    assert reference.SETTING_NAMES.read_text(encoding="utf-8") == reference.setting_names()


def test_the_parameters_of_the_api_are_current() -> None:
    """openapi.json describes the parameters of the upload service; otherwise run `make docs`."""
    text = openapi.FILE.read_text(encoding="utf-8")
    assert openapi.render(text) == text
