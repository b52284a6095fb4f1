"""Brings the index of a collection up to date with its folder when `simile up` starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from services.cli.up_screen import Screen, Served
from services.local import first_query
from services.local.source import Source
from services.searcher.build import builder
from services.searcher.build.build_metrics import BuildMetrics, MeasuredProgress
from services.searcher.build.builder import BuildReport, BuildRequest
from services.searcher.progress import NoProgress, Progress
from services.searcher.settings import IndexSettings
from services.shared.errors import IndexCorrupt, NoIndex, SimileError, UnknownCollection
from services.shared.messaging.broker import Broker
from services.shared.settings import SharedSettings
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume


@dataclass(frozen=True, slots=True)
class IndexBuild:
    """Builds the index of a collection, whose images are drawn first where it is the sample."""

    shared: SharedSettings
    settings: IndexSettings
    broker: Broker
    source: Source
    metrics: BuildMetrics

    async def run(self, progress: Progress) -> BuildReport:
        """Embed what changed since the active version, and publish it. Raises BuildFailed."""
        volume = Volume(self.shared.root)
        await asyncio.to_thread(self.source.draw, volume, progress)
        request = BuildRequest(collection=self.source.collection, folder=self.source.folder)
        measured = MeasuredProgress(request.collection, self.metrics, progress)
        try:
            return await builder.build(
                request, self.settings, self.shared, self.broker, volume, progress=measured
            )
        finally:
            measured.end()


@dataclass(frozen=True, slots=True)
class IndexRefresher:
    """Builds the index while the services run, and reports when a query is answered.

    Attributes:
        work: builds the index.
        screen: shows what is done.
        changes: yields when files of a folder have changed; None: the folder is read once.
    """

    work: IndexBuild
    screen: Screen
    changes: Callable[[Path], AsyncIterator[None]] | None = None

    async def refresh(self, url: str) -> None:
        """Build the index and report ready, then again whenever files change."""
        if self.changes is None:
            await self._first_refresh(url)
            return
        changed = asyncio.Event()
        # Watched from the start: a file may come while the first index is built.
        await asyncio.gather(self._watch(self.changes, changed), self._follow(url, changed))

    async def _watch(
        self, changes: Callable[[Path], AsyncIterator[None]], changed: asyncio.Event
    ) -> None:
        async for _ in changes(self.work.source.folder):
            changed.set()

    async def _follow(self, url: str, changed: asyncio.Event) -> None:
        await self._first_refresh(url)
        self.screen.step(f"watching {self.work.source.folder}")
        while True:
            await changed.wait()
            changed.clear()
            try:
                served = _served(await self.work.run(NoProgress()))
            except SimileError as error:
                self.screen.warn(f"the index could not be updated: {error}", error.code)
            else:
                if served.changed:
                    self.screen.refreshed(served)

    async def _first_refresh(self, url: str) -> None:
        """Build the index and report ready; an existing index of the folder is reported first."""
        served = self._serves()
        if served is None:
            await asyncio.gather(self._show_page(url), self._first_build(url))
        else:
            # At the same time: after a change of the model no query is answered before the refresh.
            await self._refresh_behind(url, served)

    async def _show_page(self, url: str) -> None:
        await first_query.until_reachable(url)
        self.screen.step(f"open {url} (preparing {self.work.source.collection})")

    async def _first_build(self, url: str) -> None:
        report = await self.work.run(self.screen.progress)
        await self._until_answered(url)
        self.screen.ready(url, _served(report))

    async def _refresh_behind(self, url: str, served: Manifest) -> None:
        reports: list[Served] = []
        ready = asyncio.Event()

        async def announce() -> None:
            await self._until_answered(url)
            ready.set()
            before = Served(served.collection, served.count, left_out=None)
            self.screen.ready(url, *(reports or [before]))

        async def refresh() -> None:
            try:
                reports.append(_served(await self.work.run(self.screen.progress)))
            except SimileError as error:
                # The served version stays valid; only the latest changes are missing.
                self.screen.warn(f"the index could not be updated: {error}", error.code)
                reports.append(Served(served.collection, served.count, left_out=()))
                return
            if ready.is_set():
                self.screen.refreshed(*reports)

        await asyncio.gather(announce(), refresh())

    async def _until_answered(self, url: str) -> None:
        await first_query.until_answered(
            url,
            self.work.source.collection,
            lambda refusal: self.screen.warn(
                f"no query is answered at {url} yet: {refusal}", "first_query_late"
            ),
        )

    def _serves(self) -> Manifest | None:
        """Return the manifest of the active version, if it is of this folder."""
        volume, collection = Volume(self.work.shared.root), self.work.source.collection
        try:
            manifest = volume.manifest(collection, volume.active(collection))
        except (UnknownCollection, NoIndex, IndexCorrupt):
            return None
        return manifest if Path(manifest.images_root) == self.work.source.folder else None


def _served(report: BuildReport) -> Served:
    manifest = report.manifest
    return Served(
        manifest.collection,
        manifest.count,
        report.failures,
        changed=report.published,
        vanished=report.vanished,
    )
