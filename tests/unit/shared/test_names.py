"""Names of collections: letters of every script, and nothing that a path or a URL can't hold."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.shared.errors import MalformedRequest
from services.shared.volume.names import MAX_LENGTH, is_name, name_of
from services.shared.volume.volume import Volume
from services.upload.http.responses import ItemBodies
from tests.support.volume import items
from tests.unit.upload.conftest import OPENAPI

PATTERN: Final = re.compile(OPENAPI["components"]["schemas"]["CollectionName"]["pattern"])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("Pictures", "pictures"),
        ("My Pictures (2024)", "my-pictures-2024"),
        ("Фотографии", "фотографии"),
        ("写真", "写真"),
        ("चित्र", "चित्र"),
        ("صور", "صور"),
        ("Été", "été"),
        ("-_x_-", "x"),
        ("...", ""),
        ("x" * 80, "x" * MAX_LENGTH),
    ],
)
def test_a_name_keeps_the_letters_of_every_script(folder: str, name: str) -> None:
    """Capitals become small, other characters a dash; composed and decomposed text is one name."""
    assert name_of(folder) == name
    assert name_of(unicodedata.normalize("NFD", folder)) == name


@settings(max_examples=50)
@given(st.text())
def test_a_name_that_is_made_is_one(text: str) -> None:
    """Of any text comes a valid name or nothing, and a name made of a name is itself."""
    name = name_of(text)
    assert name == "" or is_name(name)
    assert name_of(name) == name


@settings(max_examples=50)
@given(st.text(max_size=MAX_LENGTH + 2))
def test_a_name_is_safe_on_a_volume_and_in_a_url(text: str) -> None:
    """No separator, no dot, at most 255 bytes; the API's description allows each valid name."""
    if is_name(text):
        assert not set(text) & set("./\\%?#&= \0")
        assert len(text.encode()) <= 255
        assert PATTERN.fullmatch(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Birds",
        "a b",
        "../x",
        "a/b",
        ".x",
        "-x",
        "_x",
        "x" * 64,
        "e\u0301",
        "\u0301a",
        "a\u202eb",
    ],
)
def test_other_texts_are_refused(text: str, tmp_path: Path) -> None:
    """Capitals, decomposed accents, signs that turn text round: the error says what is allowed."""
    assert not is_name(text)
    with pytest.raises(MalformedRequest, match="use letters"):
        Volume(tmp_path).home(text)


def test_a_name_is_encoded_in_urls() -> None:
    """An answer's URLs are ASCII, as a client sends them."""
    (item,) = items(1)
    body = ItemBodies().item("été", item)
    assert body["image_url"] == f"/v1/items/%C3%A9t%C3%A9/{item.item_id}/image"
