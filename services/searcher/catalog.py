"""Which index versions are open: follows ACTIVE, verifies the new beside the old, swaps.

A version that fails its checks is refused and the old one keeps answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from services.searcher.index import Index
from services.searcher.metrics import SearcherMetrics
from services.shared.collection import Volume
from services.shared.errors import NoIndex, SimileError

_log = structlog.get_logger(__name__)


class Catalog:
    """The open index of each collection on the volume."""

    def __init__(self, volume: Volume, metrics: SearcherMetrics) -> None:
        self._volume = volume
        self._metrics = metrics
        self._open: dict[str, Index] = {}
        self._refused: dict[str, str] = {}
        self._volume_away = False

    @property
    def open(self) -> Mapping[str, Index]:
        """The open indexes by collection."""
        return self._open

    def get(self, collection: str) -> Index:
        """The collection's open index. Raises NoIndex; keep the reference for the whole query."""
        try:
            return self._open[collection]
        except KeyError:
            message = f"no index of {collection!r} is open here: build one, or wait until it is"
            raise NoIndex(message) from None

    async def follow(self, poll_seconds: float) -> None:
        """Refresh for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(poll_seconds)

    async def refresh(self) -> None:
        """Open what became active, and drop the collections that are gone."""
        try:
            collections = await asyncio.to_thread(self._volume.collections)
        except OSError as error:
            if not self._volume_away:
                message = f"the volume can't be read: {error}; what is open keeps answering"
                _log.error(message, action="volume_unreadable")
            self._volume_away = True
            return
        self._volume_away = False
        for gone in self._open.keys() - set(collections):
            del self._open[gone]
            self._metrics.forget_index(gone)
            _log.info("collection closed", action="index_closed", collection=gone)
        for collection in collections:
            await self._refresh_one(collection)

    async def _refresh_one(self, collection: str) -> None:
        version = ""
        try:
            version = await asyncio.to_thread(self._volume.active, collection)
            opened = self._open.get(collection)
            if opened is not None and opened.manifest.version == version:
                self._refused.pop(collection, None)
                return
            if self._refused.get(collection) == version:
                return
            index = await asyncio.to_thread(self._open_version, collection, version)
        except SimileError as error:
            self._refuse(collection, version, error)
            return
        self._refused.pop(collection, None)
        # One assignment: a query holds either the old index or the new, never both.
        self._open[collection] = index
        self._metrics.show_index(index.manifest)
        _log.info(
            "index opened",
            action="index_opened",
            collection=collection,
            index_version=version,
            model_id=index.manifest.model_id,
            count=index.manifest.count,
        )

    def _open_version(self, collection: str, version: str) -> Index:
        manifest = self._volume.manifest(collection, version)
        return Index.open(self._volume.directory(collection, version), manifest)

    def _refuse(self, collection: str, version: str, error: SimileError) -> None:
        if self._refused.get(collection) == version:
            return
        self._refused[collection] = version
        self._metrics.refused.labels(collection=collection, code=error.code).inc()
        answering = self._open.get(collection)
        _log.error(
            str(error),
            action=error.code,
            collection=collection,
            refused_version=version,
            answering_version=answering.manifest.version if answering else None,
        )
