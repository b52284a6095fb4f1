"""The catalogue finds items by position, id, content, label and attribute."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.shared.contracts import Filter
from services.shared.errors import IndexCorrupt, UnknownItem
from services.shared.volume.items import Facet, Item, ItemCatalog, write_items

ATTRIBUTES = [{"author": "Ann"}, {"author": "Bo", "year": "1999"}, {}, {"author": "Ann"}]


def _items(count: int) -> Iterator[Item]:
    for position in range(count):
        yield Item(
            position=position,
            item_id=f"id-{position}",
            path=f"{position}.jpg",
            label="cat" if position % 3 == 0 else 'dog\'s "best"',
            attributes=ATTRIBUTES[position % 4],
            width=3,
            height=2,
            sha256=f"hash-{position % 5}",
        )


@pytest.fixture
def catalog(tmp_path: Path) -> ItemCatalog:
    """Write a catalogue of twelve items with two labels."""
    write_items(tmp_path / "items.sqlite", _items(12))
    return ItemCatalog(tmp_path / "items.sqlite")


def test_items_come_back_as_they_were_written(catalog: ItemCatalog) -> None:
    """Items are read by position in any order, by id, and in sequence; unknown ones are refused."""
    written = list(_items(12))
    assert list(catalog) == written
    assert catalog.at([7, 2, 7]) == [written[7], written[2], written[7]]
    assert catalog.by_id("id-4") == written[4]
    assert catalog.at([]) == []
    with pytest.raises(UnknownItem):
        catalog.at([3, 12])
    with pytest.raises(UnknownItem):
        catalog.by_id("id-12")


def test_contents_are_found_by_their_hash(catalog: ItemCatalog) -> None:
    """The first of several copies is found, and None where no item has the hash."""
    assert catalog.position_of("hash-2") == 2
    assert catalog.position_of("hash-9") is None


@pytest.mark.parametrize(
    ("wanted", "passing"),
    [
        (Filter(), list(range(12))),
        (Filter(("cat",)), [0, 3, 6, 9]),
        (Filter(('dog\'s "best"', "cat")), list(range(12))),
        (Filter(("mouse",)), []),
        (Filter((), {"author": ("Ann",)}), [0, 3, 4, 7, 8, 11]),
        (Filter((), {"author": ("Ann", "Bo")}), [0, 1, 3, 4, 5, 7, 8, 9, 11]),
        (Filter(("cat",), {"author": ("Bo",), "year": ("1999", "2000")}), [9]),
        (Filter((), {"author": ("' OR 1=1 --",)}), []),
        (Filter((), {"size": ("L",)}), []),
    ],
    ids=str,
)
def test_a_filter_passes_what_it_says(
    catalog: ItemCatalog, wanted: Filter, passing: list[int]
) -> None:
    """An item passes with one of the labels and, for each attribute, one of its values."""
    assert list(catalog.matching(wanted)) == passing


def test_facets_count_what_can_be_asked_for(catalog: ItemCatalog) -> None:
    """The most frequent values come first, limited to the requested number."""
    facets = catalog.facets(10)
    assert facets.labels == (Facet('dog\'s "best"', 8), Facet("cat", 4))
    assert facets.attributes == {
        "author": (Facet("Ann", 6), Facet("Bo", 3)),
        "year": (Facet("1999", 3),),
    }
    assert catalog.facets(1).labels == (Facet('dog\'s "best"', 8),)


def test_large_requests_are_answered_in_parts(tmp_path: Path) -> None:
    """Thousands of positions, and thousands of items, are read completely and in order."""
    write_items(tmp_path / "items.sqlite", _items(2500))
    catalog = ItemCatalog(tmp_path / "items.sqlite")
    assert [item.position for item in catalog] == list(range(2500))
    positions = list(range(2499, -1, -1))
    assert [item.position for item in catalog.at(positions)] == positions
    assert len(catalog.matching(Filter(("cat",)))) == 834


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000])
def test_what_is_no_catalogue_is_refused(tmp_path: Path, content: bytes) -> None:
    """A damaged file is a named error."""
    (tmp_path / "items.sqlite").write_bytes(content)
    with pytest.raises(IndexCorrupt):
        ItemCatalog(tmp_path / "items.sqlite")
