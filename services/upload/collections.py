"""Reads collections for the API: names, items, images and thumbnails.

Reads only the volume, in threads; a newly active version is opened within
a quarter of a second. A damaged version is refused, as searchers do, and the one before is
still used.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, TypeVar

from services.shared.contracts import Filter
from services.shared.errors import (
    IndexBuilding,
    IndexCorrupt,
    NoIndex,
    SimileError,
    UnknownCollection,
)
from services.shared.volume.build_progress import BuildProgress
from services.shared.volume.following import Following
from services.shared.volume.items import ITEMS, Facets, Item, ItemCatalog
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Lease, Volume, read_vector, read_vectors
from services.upload.collection_names import CollectionNames
from services.upload.search.embedding_cache import Vector
from services.upload.stored_images import StoredImages

_T = TypeVar("_T")

_LOOK_AGAIN_SECONDS: Final = 0.25
_MAX_FACETS: Final = 200
_MAX_KEPT: Final = 5
"""Versions of a collection that are listed."""


@dataclass(frozen=True)
class OpenCollection:
    """Holds a collection's active version open for reading; the lease keeps it from removal."""

    manifest: Manifest
    directory: Path
    items: ItemCatalog
    lease: Lease

    @cached_property
    def facets(self) -> Facets:
        """The values of its items' labels and attributes, counted once."""
        return self.scanned.facets(_MAX_FACETS)

    @cached_property
    def scanned(self) -> ItemCatalog:
        """The items on another connection, which long queries may keep busy."""
        return ItemCatalog(self.directory / ITEMS)


@dataclass(frozen=True, slots=True)
class Listed:
    """Holds a collection as it is listed: its active version, and the build that runs now."""

    name: str
    opened: OpenCollection | None
    build: BuildProgress | None


class CollectionReader:
    """Reads every collection of the volume; `images` reads the files of their items."""

    def __init__(
        self,
        volume: Volume,
        *,
        default_collection: str | None,
        images: StoredImages,
        hidden: frozenset[str] = frozenset(),
        look_again_seconds: float = _LOOK_AGAIN_SECONDS,
    ) -> None:
        self._volume = volume
        self.images = images
        self._names = CollectionNames(volume, default_collection, hidden)
        self._opened: dict[str, OpenCollection] = {}
        self._versions = Following(volume, self._open)
        self._looked: dict[str | None, tuple[float, OpenCollection]] = {}
        self._look_again_seconds = look_again_seconds
        self._recent: str | None = None
        self._counting = asyncio.Lock()

    async def open(self, collection: str | None) -> OpenCollection:
        """Return the collection, or the default one.

        Raises CollectionRequired, UnknownCollection, NoIndex.
        """
        looked = self._looked.get(collection)
        if looked is not None and time.monotonic() < looked[0]:
            return looked[1]
        # Dropped first: this entry would hold a removed collection's version.
        self._looked.pop(collection, None)
        opened = await asyncio.to_thread(self._current, collection)
        self._looked[collection] = (time.monotonic() + self._look_again_seconds, opened)
        self._recent = opened.manifest.collection
        return opened

    async def recent(self) -> OpenCollection | None:
        """Return the most recently requested collection; at first the default one, or any."""
        names = await asyncio.to_thread(self._indexed)
        wanted = (self._recent, self._names.wanted, *names)
        name = next((name for name in wanted if name in names), None)
        if name is None:
            return None
        try:
            return await asyncio.to_thread(self._current, name)
        except SimileError:
            return None  # its searchers report it

    async def opened(self) -> Sequence[OpenCollection]:
        """Return every readable collection."""
        return await asyncio.to_thread(self._readable)

    async def listing(self) -> tuple[Sequence[Listed], str | None]:
        """Return the collections that can be read or are being built, and the default's name."""
        return await asyncio.to_thread(self._listing)

    async def kept(self) -> Sequence[Manifest]:
        """Return the newest versions of each collection that are on the volume, newest first."""
        return await asyncio.to_thread(self._kept)

    async def listed(self, collection: str) -> Listed:
        """Return one collection as it is listed. Raises UnknownCollection, NoIndex."""
        build = await asyncio.to_thread(self._names.build_of, collection)
        try:
            return Listed(collection, await self.open(collection), build)
        except IndexBuilding:
            return Listed(collection, None, build)

    @contextlib.asynccontextmanager
    async def reading(self, opened: OpenCollection) -> AsyncIterator[None]:
        """Raise UnknownCollection for what fails inside since the collection was just deleted."""
        try:
            yield
        except (OSError, IndexCorrupt, NoIndex) as error:
            if await asyncio.to_thread(opened.directory.is_dir):
                raise
            name = opened.manifest.collection
            message = f"the collection {name!r} was deleted; GET /v1/collections shows the others"
            raise UnknownCollection(message) from error

    async def _read(self, opened: OpenCollection, work: Callable[[], _T]) -> _T:
        """Return what `work` reads, in a thread."""
        async with self.reading(opened):
            return await asyncio.to_thread(work)

    async def item(self, opened: OpenCollection, item_id: str) -> Item:
        """Return an item. Raises UnknownItem."""
        return await self._read(opened, lambda: opened.items.by_id(item_id))

    async def items_at(self, opened: OpenCollection, positions: Sequence[int]) -> Sequence[Item]:
        """Return the items at these positions."""
        return await self._read(opened, lambda: opened.items.at(positions))

    async def sample(self, opened: OpenCollection, count: int) -> Sequence[Item]:
        """Return items spread over the collection."""
        return await self._read(opened, lambda: opened.items.sample(count))

    async def facets(self, opened: OpenCollection) -> Facets:
        """Return the labels and attributes that a filter can name."""
        async with self._counting:
            return await self._read(opened, lambda: opened.facets)

    async def page(
        self, opened: OpenCollection, wanted: Filter, first: int, limit: int
    ) -> tuple[Sequence[Item], int]:
        """Return at most `limit` items from position `first` on, and how many pass the filter."""

        def read() -> tuple[Sequence[Item], int]:
            items = opened.scanned
            count = items.count if wanted == Filter() else items.count_matching(wanted)
            return items.page(wanted, first, limit), count

        return await self._read(opened, read)

    async def vectors(self, opened: OpenCollection, items: Sequence[Item]) -> Sequence[bytes]:
        """Return the stored vectors of items, each as little-endian float32 values."""
        positions = [item.position for item in items]
        dimension = opened.manifest.dimension
        return await self._read(
            opened, lambda: read_vectors(opened.directory, positions, dimension)
        )

    async def absent(self, opened: OpenCollection, wanted: Filter) -> Filter:
        """Return the labels and attribute values of a filter that no item has."""
        return await self._read(opened, lambda: opened.items.absent(wanted))

    async def vector(self, opened: OpenCollection, item: Item) -> Vector:
        """Return an item's stored vector."""
        manifest = opened.manifest
        raw = await self._read(
            opened, lambda: read_vector(opened.directory, item.position, manifest.dimension)
        )
        return Vector(manifest.model_id, manifest.dimension, raw)

    def _kept(self) -> list[Manifest]:
        kept = []
        for name in self._names.indexed():
            for version in self._volume.versions(name)[: -_MAX_KEPT - 1 : -1]:
                with contextlib.suppress(SimileError):  # removed, or reported by its searchers
                    kept.append(self._volume.manifest(name, version))
        return kept

    def _current(self, collection: str | None) -> OpenCollection:
        name = collection or self._names.default()
        self._names.require_served(name)
        opened = self._opened.get(name)
        try:
            answering = None if opened is None else opened.manifest.version
            newer = self._versions.newer(name, answering, retry=opened is None)
        except NoIndex as error:
            self._opened.pop(name, None)
            raise self._names.explained(name, error) from error
        except UnknownCollection:
            self._opened.pop(name, None)
            raise
        if newer is not None:
            self._opened[name] = newer
            return newer
        if opened is None:
            reason = self._versions.reason(name)
            message = f"the active index of {name!r} can't be read: {reason}"
            raise NoIndex(message)
        return opened

    def _open(self, name: str, version: str) -> OpenCollection:
        """Open a version, and check the sizes of its files. Raises IndexCorrupt.

        Only searchers verify the hashes.
        """
        # Held before it is opened, so that it can't be removed meanwhile.
        lease = self._volume.hold(name, version)
        directory = self._volume.directory(name, version)
        manifest = self._volume.manifest(name, version)
        for file, expected in manifest.files.items():
            try:
                size = (directory / file).stat().st_size
            except OSError as error:
                message = f"{file} of {name} {version} can't be read: {error}"
                raise IndexCorrupt(message) from error
            if size != expected.bytes:
                message = f"{file} of {name} {version} has {size} bytes, not {expected.bytes}"
                raise IndexCorrupt(message)
        return OpenCollection(manifest, directory, ItemCatalog(directory / ITEMS), lease)

    def _indexed(self) -> list[str]:
        """Return the collections, sorted; close those that are gone, so that disk is freed."""
        names = self._names.indexed()
        for gone in self._opened.keys() - set(names):
            closed = self._opened.pop(gone, None)
            for key, (_, looked) in [*self._looked.items()]:
                if looked is closed:
                    self._looked.pop(key, None)
        return names

    def _readable(self) -> list[OpenCollection]:
        readable = []
        for name in self._indexed():
            try:
                readable.append(self._current(name))
            except SimileError:
                continue  # reported by its searchers; not searchable here
        return readable

    def _listing(self) -> tuple[list[Listed], str | None]:
        opened = {opened.manifest.collection: opened for opened in self._readable()}
        builds = self._names.builds()
        names = sorted({*opened, *builds})
        known = self._names.wanted in names
        default = self._names.wanted if known else names[0] if len(names) == 1 else None
        return [Listed(name, opened.get(name), builds.get(name)) for name in names], default
