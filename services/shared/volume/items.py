"""Writes and reads the items of an index version: position -> id, path, label, attributes.

Uses sqlite and no numpy, since upload reads items too.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.shared.contracts import Filter
from services.shared.errors import IndexCorrupt, UnknownItem
from services.shared.json_text import read_json

ITEMS: Final = "items.sqlite"

_SCHEMA: Final = """
CREATE TABLE items (position INTEGER PRIMARY KEY, item_id TEXT NOT NULL, path TEXT NOT NULL,
  label TEXT NOT NULL, attributes TEXT NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
  sha256 TEXT NOT NULL);
CREATE TABLE attributes (name TEXT NOT NULL, value TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (name, value, position)) WITHOUT ROWID;
"""
_INDEXES: Final = """
CREATE UNIQUE INDEX items_item_id ON items (item_id);
CREATE INDEX items_label ON items (label);
CREATE INDEX items_sha256 ON items (sha256);
"""
_BLOCK_ROWS: Final = 1000
_MAX_KEPT: Final = 10_000
"""How many items are cached after they were read: some 10 MB."""


@dataclass(frozen=True, slots=True)
class Item:
    """Describes an image of a collection.

    Attributes:
        position: the number of the item in the index version.
        item_id: the item's stable id.
        path: relative to the manifest's images_root.
        label: the class of the image.
        attributes: more names and values.
        width: in pixels, as stored.
        height: in pixels, as stored.
        sha256: of the file, in hexadecimal digits.
    """

    position: int
    item_id: str
    path: str
    label: str
    attributes: Mapping[str, str]
    width: int
    height: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Facet:
    """Counts the items that have a value."""

    value: str
    count: int


@dataclass(frozen=True, slots=True)
class Facets:
    """Lists the most frequent labels and attribute values that filters can use.

    Attributes:
        labels: the labels, most frequent first.
        attributes: the values of each attribute, most frequent first.
        label_values: how many labels there are.
        attribute_values: how many values each attribute has.
    """

    labels: tuple[Facet, ...]
    attributes: Mapping[str, tuple[Facet, ...]]
    label_values: int = 0
    attribute_values: Mapping[str, int] = field(default_factory=dict)


class ItemCatalog:
    """Reads a version's items.sqlite, from any thread."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises IndexCorrupt."""
        self._lock = threading.Lock()
        self._kept: dict[int, Item] = {}
        try:
            # immutable: published versions never change, so no locks on a shared volume.
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro&immutable=1",
                uri=True,
                check_same_thread=False,
            )
            self._connection.row_factory = sqlite3.Row
            self.count = int(self._connection.execute("SELECT count(*) FROM items").fetchone()[0])
        except sqlite3.Error as error:
            message = f"{ITEMS} can't be read: {error}"
            raise IndexCorrupt(message) from error

    def at(self, positions: Sequence[int]) -> list[Item]:
        """Return the items at these positions, in the same order. Raises UnknownItem."""
        kept = self._kept
        found = {one: item for one in positions if (item := kept.get(one)) is not None}
        missing = [position for position in positions if position not in found]
        for start in range(0, len(missing), _BLOCK_ROWS):
            wanted = missing[start : start + _BLOCK_ROWS]
            rows = self._rows(
                f"SELECT * FROM items WHERE position IN ({_marks(wanted)})",  # noqa: S608 (only question marks)
                wanted,
            )
            read = {item.position: item for item in map(_item, rows)}
            found |= read
            if len(kept) + len(read) > _MAX_KEPT:
                self._kept = kept = {}  # not emptied in place: other threads may be reading it
            kept |= read
        try:
            return [found[position] for position in positions]
        except KeyError as error:
            message = f"no item at position {error}"
            raise UnknownItem(message) from None

    def by_id(self, item_id: str) -> Item:
        """Return the item of that id. Raises UnknownItem."""
        rows = self._rows("SELECT * FROM items WHERE item_id = ?", [item_id])
        if not rows:
            message = f"no item {item_id[:40]!r} in this collection"
            raise UnknownItem(message)
        return _item(rows[0])

    def position_of(self, sha256: str) -> int | None:
        """Return the first position whose file has this hash; None without one."""
        rows = self._rows("SELECT min(position) FROM items WHERE sha256 = ?", [sha256])
        position: int | None = rows[0][0]
        return position

    def sample(self, count: int) -> list[Item]:
        """Return up to `count` items, spread evenly over the collection."""
        taken = min(count, self.count)
        return self.at([number * self.count // taken for number in range(taken)])

    def page(self, wanted: Filter, first: int, limit: int) -> list[Item]:
        """Return the items from position `first` on that pass the filter, at most `limit`."""
        condition, parameters = _condition(wanted)
        rows = self._rows(
            f"SELECT * FROM items WHERE {condition} AND position >= ?"  # noqa: S608 (only question marks)
            " ORDER BY position LIMIT ?",
            [*parameters, first, limit],
        )
        return [_item(row) for row in rows]

    def count_matching(self, wanted: Filter) -> int:
        """Return the number of items that pass the filter."""
        condition, parameters = _condition(wanted)
        query = f"SELECT count(*) FROM items WHERE {condition}"  # noqa: S608 (only question marks)
        return int(self._rows(query, parameters)[0][0])

    def absent(self, wanted: Filter) -> Filter:
        """Return the labels and attribute values of the filter that no item has."""
        query = "SELECT 1 FROM items WHERE label = ? LIMIT 1"
        labels = tuple(one for one in wanted.labels if not self._rows(query, [one]))
        attributes = {
            name: missing
            for name, values in wanted.attributes.items()
            if (missing := self._absent_values(name, values))
        }
        return Filter(labels, attributes)

    def _absent_values(self, name: str, values: Sequence[str]) -> tuple[str, ...]:
        query = "SELECT 1 FROM attributes WHERE name = ? AND value = ? LIMIT 1"
        return tuple(value for value in values if not self._rows(query, [name, value]))

    def matching(self, wanted: Filter) -> array[int]:
        """Return the positions (int64, ascending) of the items that pass the filter."""
        # From the indexes alone: a page's condition would read each row of the table, too.
        parts, parameters = ["SELECT position FROM items"], list[object]()
        if wanted.labels:
            parts = [f"SELECT position FROM items WHERE label IN ({_marks(wanted.labels)})"]  # noqa: S608 (only question marks)
            parameters += wanted.labels
        for name, values in wanted.attributes.items():
            parts.append(
                "SELECT position FROM attributes"  # noqa: S608 (only question marks)
                f" WHERE name = ? AND value IN ({_marks(values)})"
            )
            parameters += [name, *values]
        query = " INTERSECT ".join(parts)
        with self._lock:
            found = array("q", (row[0] for row in self._connection.execute(query, parameters)))
        return array("q", sorted(found))

    def facets(self, limit: int) -> Facets:
        """Return the `limit` most frequent labels, and as many values of each attribute."""
        labels = self._rows(
            "SELECT label, count(*), count(*) OVER () FROM items GROUP BY label"
            " ORDER BY count(*) DESC, label LIMIT ?",
            [limit],
        )
        names = [row[0] for row in self._rows("SELECT DISTINCT name FROM attributes", [])]
        values = {name: self._values(name, limit) for name in names}
        attributes = {name: _facets(rows) for name, rows in values.items()}
        counts = {name: rows[0][2] for name, rows in values.items()}
        return Facets(_facets(labels), attributes, labels[0][2] if labels else 0, counts)

    def _values(self, name: str, limit: int) -> list[sqlite3.Row]:
        """Return rows of a value, the number of its items, and the number of values."""
        return self._rows(
            "SELECT value, count(*), count(*) OVER () FROM attributes WHERE name = ?"
            " GROUP BY value ORDER BY count(*) DESC, value LIMIT ?",
            [name, limit],
        )

    def __iter__(self) -> Iterator[Item]:
        """Yield every item by position, with few of them in memory."""
        position = -1
        while rows := self._rows(
            "SELECT * FROM items WHERE position > ? ORDER BY position LIMIT ?",
            [position, _BLOCK_ROWS],
        ):
            yield from map(_item, rows)
            position = rows[-1]["position"]

    def __del__(self) -> None:
        # A replaced version is closed with its last reference.
        if hasattr(self, "_connection"):
            self._connection.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _rows(self, query: str, parameters: Sequence[object]) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, parameters).fetchall()


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write a new items.sqlite; items are taken one by one."""
    with closing(sqlite3.connect(path)) as connection:
        # The file is read only after it is finished and synced, so that a journal is useless.
        connection.execute("PRAGMA journal_mode=OFF")
        connection.executescript(_SCHEMA)
        with connection:
            for item in items:
                _insert(connection, item)
        connection.executescript(_INDEXES)


def _insert(connection: sqlite3.Connection, item: Item) -> None:
    attributes = dict(item.attributes)
    connection.execute(
        "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            item.position, item.item_id, item.path, item.label,
            json.dumps(attributes, sort_keys=True), item.width, item.height, item.sha256,
        ),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO attributes VALUES (?, ?, ?)",
        [(name, value, item.position) for name, value in attributes.items()],
    )


def _condition(wanted: Filter) -> tuple[str, list[str]]:
    """Return the SQL condition of a filter on a row of `items`, and its parameters."""
    parts, parameters = ["1"], list[str]()
    if wanted.labels:
        parts.append(f"label IN ({_marks(wanted.labels)})")
        parameters += wanted.labels
    for name, values in wanted.attributes.items():
        parts.append(
            "position IN (SELECT position FROM attributes"  # noqa: S608 (only question marks)
            f" WHERE name = ? AND value IN ({_marks(values)}))"
        )
        parameters += [name, *values]
    return " AND ".join(parts), parameters


def _facets(rows: Iterable[sqlite3.Row]) -> tuple[Facet, ...]:
    return tuple(Facet(row[0], row[1]) for row in rows)


def _item(row: sqlite3.Row) -> Item:
    return Item(**{**row, "attributes": read_json(row["attributes"])})


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
