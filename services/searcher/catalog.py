"""Holds the open index versions: follows ACTIVE, verifies a new version beside the old, swaps.

A version that fails its checks is refused; the old one keeps answering, if it is open. Where not
all collections fit into the allowed memory, the least recently used are closed, and opened again by
their next query.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from collections.abc import Mapping

import structlog

from services.searcher.index.finder import Finder
from services.searcher.index.index import Index
from services.searcher.metrics import SearcherMetrics
from services.shared.errors import IndexCorrupt, NoIndex, SimileError, UnknownCollection
from services.shared.volume.following import Following
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)


class Catalog:
    """Holds the open index of each collection, as far as the allowed memory reaches.

    An index is never changed: a query keeps the Finder that it got, even where the catalog swaps or
    closes it meanwhile. Only one task at a time opens versions.
    """

    def __init__(
        self, volume: Volume, metrics: SearcherMetrics, *, memory_bytes: int | None = None
    ) -> None:
        """Create an empty catalog; `refresh` fills it.

        Args:
            volume: holds the collections.
            metrics: the searcher's metrics.
            memory_bytes: the bytes of the open indexes, at most; None for no limit. A single index
                may be larger. While a version is opened, the one that it replaces counts besides.
        """
        self._volume = volume
        self._metrics = metrics
        self._memory_bytes = memory_bytes
        # In the order of use, the least recently used first.
        self._open: OrderedDict[str, Finder] = OrderedDict()
        self._versions = Following(volume, self._open_index, on_refusal=self._count_refusal)
        # Not open, to save memory; their next query opens them.
        self._openable: set[str] = set()
        self._opening = asyncio.Lock()
        self._volume_away = False
        self._filled, self._emptied = asyncio.Event(), asyncio.Event()
        self._emptied.set()

    @property
    def open(self) -> Mapping[str, Finder]:
        """The open indexes by collection."""
        return self._open

    @property
    def recent(self) -> Finder | None:
        """The open index that was used last."""
        return next(reversed(self._open.values()), None)

    @property
    def empty(self) -> bool:
        """Return whether no collection is open, or opened by its next query."""
        return not self._open and not self._openable

    async def filled(self) -> None:
        """Wait until the catalog is not empty."""
        await self._filled.wait()

    async def emptied(self) -> None:
        """Wait until the catalog is empty."""
        await self._emptied.wait()

    def knows(self, collection: str) -> bool:
        """Return whether the collection is open, or opened by its next query."""
        return collection in self._open or collection in self._openable

    @property
    def mapped_bytes(self) -> int:
        """The size of all open indexes."""
        return sum(finder.index.manifest.bytes for finder in self._open.values())

    def get(self, collection: str) -> Finder:
        """Return the collection's open index, and note its use.

        The caller keeps the reference for the whole query: the index may be swapped meanwhile.

        Raises:
            NoIndex: no index of the collection is open here.
        """
        try:
            self._open.move_to_end(collection)
            return self._open[collection]
        except KeyError:
            message = f"no index of {collection!r} is open here: build one, or wait until it is"
            raise NoIndex(message) from None

    async def opened(self, collection: str) -> Finder:
        """Return the collection's index; open it first if needed.

        Opening verifies every file of the version, and waits for a version that is being opened.

        Raises:
            NoIndex: there is no active version, or the active version is refused.
            OSError: the machine can't open files; the searcher ends, and is started again.
        """
        if collection not in self._open and collection not in self._versions.refused:
            async with self._opening:
                if collection in self._openable or await self._became_active(collection):
                    await self._refresh_one(collection, wanted=True)
        return self.get(collection)

    async def _became_active(self, collection: str) -> bool:
        """Return whether the volume has an active version of a collection that is not open."""
        if collection in self._open:
            return False
        with contextlib.suppress(SimileError):
            await asyncio.to_thread(self._volume.active, collection)
            return True
        return False

    def drop(self, collection: str, finder: Finder, error: IndexCorrupt) -> None:
        """Close an index whose files were changed, and refuse its version.

        Args:
            collection: the collection's name.
            finder: the index that failed; nothing happens where a new version has replaced it.
            error: the reason.
        """
        if self._open.get(collection) is finder:
            self._close(collection)
            self._note_emptiness()
            self._versions.refuse(collection, finder.index.manifest.version, error)
            self._show_refusal(collection)

    async def follow(self, poll_seconds: float) -> None:
        """Refresh until cancelled. Raises OSError if the machine can't open a version."""
        while True:
            await self.refresh()
            await asyncio.sleep(poll_seconds)

    async def refresh(self) -> None:
        """Open versions that became active, and close collections that were removed.

        A volume that can't be read is logged once, and changes nothing. A collection beyond the
        allowed memory is left to its next query.

        Raises:
            OSError: the machine can't open a version.
        """
        try:
            collections = await asyncio.to_thread(self._volume.collections)
        except OSError as error:
            if not self._volume_away:
                message = f"the volume can't be read: {error}; open indexes keep answering"
                _log.error(message, action="volume_unreadable")
            self._volume_away = True
            return
        self._volume_away = False
        known = self._open.keys() | self._openable | self._versions.refused
        for removed in known - set(collections):
            self._versions.forget(removed)
            self._metrics.index_refused.remove(removed)
        self._openable &= set(collections)
        for removed in self._open.keys() - set(collections):
            self._close(removed)
            _log.info("collection closed", action="index_closed", collection=removed)
        self._note_emptiness()
        for collection in collections:
            async with self._opening:
                await self._refresh_one(collection, wanted=False)

    async def _refresh_one(self, collection: str, *, wanted: bool) -> None:
        """Bring a collection up to date.

        Args:
            collection: the collection's name.
            wanted: a query waits for it, so other collections are closed where memory is short.
        """
        finder = self._open.get(collection)
        answering = None if finder is None else finder.index.manifest.version
        room = self._room_bytes if finder is None and not wanted else math.inf

        def admits(manifest: Manifest) -> bool:
            return manifest.bytes <= room

        try:
            index = await asyncio.to_thread(
                self._versions.newer, collection, answering, admits=admits
            )
        except (NoIndex, UnknownCollection):
            return  # removed a moment ago: the next refresh closes it
        self._show_refusal(collection)
        if index is not None:
            self._install(collection, Finder(index))
        elif answering is None:
            if collection in self._versions.refused:
                self._openable.discard(collection)
            else:
                self._openable.add(collection)
            self._note_emptiness()

    def _open_index(self, collection: str, version: str) -> Index:
        with self._metrics.open_seconds.time():
            return Index.open(self._volume, collection, version)

    def _install(self, collection: str, finder: Finder) -> None:
        self._openable.discard(collection)
        if collection in self._open:
            self._metrics.swaps.labels(collection).inc()
        # A single assignment: a query uses either the old index or the new, never both.
        self._open[collection] = finder
        self._note_emptiness()
        manifest = finder.index.manifest
        self._metrics.show_index(manifest)
        _log.info(
            "index opened",
            action="index_opened",
            collection=collection,
            index_version=manifest.version,
            model_id=manifest.model_id,
            count=manifest.count,
            method=manifest.plan.method,
            recall=round(manifest.recall, 4),
        )
        self._close_unused(collection)

    @property
    def _room_bytes(self) -> float:
        """The bytes left for another index beside the open ones; below 0 if they are too many."""
        return math.inf if self._memory_bytes is None else self._memory_bytes - self.mapped_bytes

    def _close_unused(self, newest: str) -> None:
        """Close the least recently used indexes; each opens again with its next query."""
        while self._room_bytes < 0:
            oldest = next((name for name in self._open if name != newest), None)
            if oldest is None:
                return
            self._close(oldest)
            self._openable.add(oldest)
            _log.info("collection closed to save memory", action="index_closed", collection=oldest)

    def _note_emptiness(self) -> None:
        past, now = (self._filled, self._emptied) if self.empty else (self._emptied, self._filled)
        past.clear()
        now.set()

    def _close(self, collection: str) -> None:
        del self._open[collection]
        self._metrics.forget_index(collection)

    def _count_refusal(self, collection: str, error: SimileError) -> None:
        self._metrics.refused.labels(collection=collection, code=error.code).inc()

    def _show_refusal(self, collection: str) -> None:
        refused = collection in self._versions.refused
        self._metrics.index_refused.labels(collection).set(int(refused))
