"""The files of a collection on the shared volume: their names and format, read and written.

<root>/<collection>/ACTIVE               one line: the active version
<root>/<collection>/versions/<version>/  manifest.json index.ann vectors.f32 items.sqlite
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from services.shared.errors import (
    IndexCorrupt,
    MalformedRequest,
    NoIndex,
    UnknownCollection,
    UnknownItem,
)

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
INDEX: Final = "index.ann"
VECTORS: Final = "vectors.f32"
ITEMS: Final = "items.sqlite"
FILES: Final = (INDEX, VECTORS, ITEMS)
"""The files that a manifest vouches for."""

_ACTIVE: Final = "ACTIVE"
_VERSIONS: Final = "versions"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_VERSION: Final = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}")
_FLOAT32_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a collection; position is its number in the index version.

    path is relative to the manifest's images_root; width and height are in pixels, as stored.
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
class StoredFile:
    """What a file of a version must be, to the byte."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an index version is made of.

    recall is recall@10 against exact search, measured at build; canaries are positions whose
    vectors must find themselves; images_root is where the builder saw the images.
    """

    collection: str
    version: str
    model_id: str
    dimension: int
    count: int
    trees: int
    search_k: int
    recall: float
    images_root: str
    created_unix_ms: int
    canaries: tuple[int, ...]
    files: Mapping[str, StoredFile]
    format: int = FORMAT
    metric: str = "angular"

    def to_json(self) -> str:
        """The manifest's text."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """The manifest of that text. Raises IndexCorrupt when it isn't one of this format."""
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw["format"] != FORMAT:
                message = f"the index has format {raw['format']}, this Simile reads {FORMAT}"
                raise IndexCorrupt(message)
            raw["canaries"] = tuple(int(position) for position in raw["canaries"])
            raw["files"] = {name: StoredFile(**raw["files"][name]) for name in FILES}
            manifest = cls(**{field.name: raw[field.name] for field in fields(cls)})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{MANIFEST} is no manifest: {error!r}"
            raise IndexCorrupt(message) from error
        _check(manifest)
        return manifest


def _check(manifest: Manifest) -> None:
    sizes = (manifest.count, manifest.dimension, manifest.trees, manifest.search_k)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        message = f"{MANIFEST} has a count, dimension, trees or search_k that is not positive"
        raise IndexCorrupt(message)
    if manifest.metric != "angular":
        message = f"the index has metric {manifest.metric!r}, this Simile reads 'angular'"
        raise IndexCorrupt(message)
    if manifest.files[VECTORS].bytes != _FLOAT32_BYTES * manifest.count * manifest.dimension:
        message = f"{VECTORS} does not fit count x dimension"
        raise IndexCorrupt(message)


class Volume:
    """The shared volume: collections, their versions, and which one is active."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def collections(self) -> list[str]:
        """The collections that have an active version, sorted."""
        if not self.root.is_dir():
            return []
        names = (path.name for path in self.root.iterdir() if (path / _ACTIVE).is_file())
        return sorted(name for name in names if _NAME.fullmatch(name))

    def active(self, collection: str) -> str:
        """The active version. Raises UnknownCollection, or NoIndex when nothing is active."""
        directory = self.home(collection)
        try:
            version = (directory / _ACTIVE).read_text().strip()
        except FileNotFoundError:
            if directory.is_dir():
                message = f"collection {collection!r} has no index yet: build one, then try again"
                raise NoIndex(message) from None
            message = f"there is no collection {collection!r}; GET /v1/collections lists them"
            raise UnknownCollection(message) from None
        except (OSError, UnicodeDecodeError) as error:
            message = f"{collection}/{_ACTIVE} can't be read: {error}"
            raise IndexCorrupt(message) from error
        if not _VERSION.fullmatch(version):
            message = f"{collection}/{_ACTIVE} does not name a version: {version[:40]!r}"
            raise IndexCorrupt(message)
        return version

    def versions(self, collection: str) -> list[str]:
        """Every version on the volume, oldest first."""
        directory = self.home(collection) / _VERSIONS
        if not directory.is_dir():
            return []
        return sorted(path.name for path in directory.iterdir() if _VERSION.fullmatch(path.name))

    def directory(self, collection: str, version: str) -> Path:
        """Where the version's files are, whether or not it exists. Raises IndexCorrupt."""
        if not _VERSION.fullmatch(version):
            message = f"{version[:40]!r} is no index version; `simile index list` shows them"
            raise IndexCorrupt(message)
        return self.home(collection) / _VERSIONS / version

    def manifest(self, collection: str, version: str) -> Manifest:
        """The version's manifest. Raises IndexCorrupt when it is missing or broken."""
        try:
            text = (self.directory(collection, version) / MANIFEST).read_text()
        except (OSError, UnicodeDecodeError) as error:
            message = f"version {version} of {collection} has no readable {MANIFEST}: {error}"
            raise IndexCorrupt(message) from error
        manifest = Manifest.from_json(text)
        if (manifest.collection, manifest.version) != (collection, version):
            message = f"{MANIFEST} of {collection} {version} belongs to another version"
            raise IndexCorrupt(message)
        return manifest

    def publish(self, staging: Path, manifest: Manifest) -> None:
        """Make the finished files in `staging` (same volume) the version, in one rename.

        After this the version exists whole or not at all; it isn't active yet.
        """
        write_synced(staging / MANIFEST, manifest.to_json())
        for name in FILES:
            _sync(staging / name)
        _sync(staging)
        directory = self.directory(manifest.collection, manifest.version)
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging.rename(directory)
        _sync(directory.parent)

    def activate(self, collection: str, version: str) -> None:
        """Make an existing version the one that answers. Raises IndexCorrupt if it is missing."""
        self.manifest(collection, version)
        home = self.home(collection)
        incoming = home / f"{_ACTIVE}.{os.getpid()}"
        write_synced(incoming, f"{version}\n")
        incoming.replace(home / _ACTIVE)
        _sync(home)

    def home(self, collection: str) -> Path:
        """The collection's folder. Raises MalformedRequest for what can't be a name."""
        if not _NAME.fullmatch(collection):
            message = (
                f"{collection[:40]!r} can't be a collection's name: "
                "lower-case letters, digits, - and _, 63 at most"
            )
            raise MalformedRequest(message)
        return self.root / collection


class ItemCatalog:
    """Read access to a version's items.sqlite; usable from several threads."""

    def __init__(self, path: Path) -> None:
        """Raises IndexCorrupt when the file isn't a catalogue of items."""
        self._lock = threading.Lock()
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
        """The items at these positions, in the order asked. Raises UnknownItem."""
        marks = ",".join("?" * len(positions))
        rows = self._rows(f"SELECT * FROM items WHERE position IN ({marks})", positions)  # noqa: S608 (only question marks)
        found = {item.position: item for item in rows}
        try:
            return [found[position] for position in positions]
        except KeyError as error:
            message = f"no item at position {error}"
            raise UnknownItem(message) from None

    def by_id(self, item_id: str) -> Item:
        """The item of that id. Raises UnknownItem."""
        rows = self._rows("SELECT * FROM items WHERE item_id = ?", [item_id])
        if not rows:
            message = f"no item {item_id[:40]!r} in this collection"
            raise UnknownItem(message)
        return rows[0]

    def sample(self, count: int) -> list[Item]:
        """Up to `count` items spread evenly over the collection."""
        taken = min(count, self.count)
        return self.at([number * self.count // taken for number in range(taken)])

    def all(self) -> list[Item]:
        """Every item by position."""
        return self._rows("SELECT * FROM items ORDER BY position", [])

    def __del__(self) -> None:
        # A swapped-out version is closed with its last reference, whoever holds it.
        if hasattr(self, "_connection"):
            self._connection.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def _rows(self, query: str, parameters: Sequence[object]) -> list[Item]:
        with self._lock:
            rows = self._connection.execute(query, parameters).fetchall()
        return [Item(**{**row, "attributes": json.loads(row["attributes"])}) for row in rows]


def write_items(path: Path, items: Iterable[Item]) -> None:
    """Write a new items.sqlite."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute(
                "CREATE TABLE items (position INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE,"
                " path TEXT NOT NULL, label TEXT NOT NULL, attributes TEXT NOT NULL,"
                " width INTEGER NOT NULL, height INTEGER NOT NULL, sha256 TEXT NOT NULL)"
            )
            connection.executemany(
                "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (
                        item.position, item.item_id, item.path, item.label,
                        json.dumps(dict(item.attributes), sort_keys=True),
                        item.width, item.height, item.sha256,
                    )
                    for item in items
                ),
            )  # fmt: skip
    finally:
        connection.close()


def read_vector(directory: Path, position: int, dimension: int) -> bytes:
    """One row of vectors.f32: dimension float32 values, little-endian. Raises IndexCorrupt."""
    size = _FLOAT32_BYTES * dimension
    with (directory / VECTORS).open("rb") as vectors:
        vectors.seek(position * size)
        row = vectors.read(size)
    if len(row) != size:
        message = f"{VECTORS} has no row {position}"
        raise IndexCorrupt(message)
    return row


def write_synced(path: Path, text: str) -> None:
    """Write a small text file and wait until it is on disk."""
    path.write_text(text)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
