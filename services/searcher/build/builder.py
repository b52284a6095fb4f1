"""Builds an index version from a folder of images; embeds only new and changed images.

Vectors come through the bulk queue from the same embedders that serve queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.searcher.admin import pin, versions
from services.searcher.build import disk_errors
from services.searcher.build.build_lock import locked
from services.searcher.build.build_thread import BuildThread
from services.searcher.build.bulk_embedder import BulkEmbedder
from services.searcher.build.journal import Content, FailedImage, Journal
from services.searcher.build.reuse import KeptVersions, Sources
from services.searcher.build.shown_build import shown_on_volume
from services.searcher.build.source import folder as source
from services.searcher.build.source.build_limits import BuildLimits
from services.searcher.build.source.fitting import Fitter
from services.searcher.build.source.source_reader import code_of, list_images, read_all
from services.searcher.build.vanished import Vanished
from services.searcher.build.version_writer import sweep, write_version
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.shared import lifecycle
from services.shared.errors import BuildFailed, SimileError
from services.shared.messaging.broker import Broker
from services.shared.messaging.request_reply import Inbox
from services.shared.settings import SharedSettings
from services.shared.volume.build_progress import BUILDING
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)

_PRUNED_AFTER_SECONDS: Final = 600
_NONE_VANISHED: Final = Vanished()


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """The collection's name, and the folder of its images (resolved)."""

    collection: str
    folder: Path


@dataclass(frozen=True, slots=True)
class BuildReport:
    """The result of a build. published: false if nothing had changed; pinned: not activated."""

    manifest: Manifest
    embedded: int
    reused: int
    failures: tuple[FailedImage, ...]
    seconds: float
    published: bool
    pinned: bool = False
    vanished: Vanished = _NONE_VANISHED


async def build(
    request: BuildRequest,
    settings: IndexSettings,
    shared: SharedSettings,
    broker: Broker,
    volume: Volume,
    *,
    progress: Progress,
) -> BuildReport:
    """Bring the collection's index up to date with the folder, and activate it.

    Raises BuildInProgress, BuildFailed; vectors embedded so far are kept for the next run.
    """
    home = volume.home(request.collection)
    try:
        home.mkdir(parents=True, exist_ok=True)
        building = home / BUILDING
        with locked(home), shown_on_volume(building, progress) as shown:
            sweep(building)  # first of all: leftovers may fill the disk
            with contextlib.closing(Journal(building / "journal.sqlite")) as journal:
                limits = BuildLimits.of(settings, shared)
                work = _Build(request, settings, volume, journal, shown, limits)
                return await _supervised(work, settings, shared, broker)
    except (OSError, sqlite3.Error) as error:
        raise disk_errors.explained(home, error) from error


async def _supervised(
    work: _Build, settings: IndexSettings, shared: SharedSettings, broker: Broker
) -> BuildReport:
    """Run the build with an inbox, whose failure ends the build."""
    inbox = Inbox(broker, f"index-{shared.replica}")
    receiving = asyncio.create_task(inbox.run(), name="index inbox")
    building = asyncio.create_task(work.run(BulkEmbedder(inbox, settings)), name="index build")
    try:
        await asyncio.wait({building, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if not building.done():
            await receiving
        return await building
    finally:
        await lifecycle.cancel(building, receiving)


class _Build:
    """A run of a build, under the collection's lock."""

    def __init__(
        self,
        request: BuildRequest,
        settings: IndexSettings,
        volume: Volume,
        journal: Journal,
        progress: Progress,
        limits: BuildLimits,
    ) -> None:
        self._request = request
        self._limits = limits
        self._fitter = Fitter(request.folder, limits)
        self._settings = settings
        self._volume = volume
        self._journal = journal
        self._images = source.FolderImages(request.folder, follow_symlinks=settings.follow_symlinks)
        self._kept = KeptVersions(volume, request.collection, journal)
        self._vanished = _NONE_VANISHED
        self._progress = BuildThread(progress)
        self._embedded = 0
        self._started = time.monotonic()

    async def run(self, embedder: BulkEmbedder) -> BuildReport:
        folder = source.identity(self._request.folder)
        await self._progress.run(self._read_all)
        first, model_id = await self._learn_model(embedder)
        await self._progress.run(self._kept.open, model_id)
        base = self._kept.base
        if base is not None and base.holds_content(first.sha256):
            self._embedded -= 1
        await self._embed_all(embedder, model_id)
        source.require_same(self._request.folder, folder)
        if not self._journal.usable():
            raise self._nothing_usable()
        if base is not None and await self._progress.run(
            base.is_current, self._journal, self._settings, self._sources()
        ):
            self._journal.forget_vectors()
            return self._report(base.manifest, published=False)
        manifest = await self._progress.run(self._publish, model_id)
        report = self._report(manifest, published=True)
        _log.info(
            "index published", action="index_published", collection=manifest.collection,
            index_version=manifest.version, count=manifest.count, embedded=report.embedded,
            failed=len(report.failures), vanished=report.vanished.count,
            pinned=report.pinned,
        )  # fmt: skip
        return report

    def _read_all(self) -> None:
        """Read all files, in a thread. Raises ImagesMissing if many are gone."""
        total = list_images(self._images, self._journal)
        self._kept.forget_other_folder(self._request.folder)
        read_all(self._images, self._journal, self._limits, self._progress, total)
        self._vanished = self._kept.vanished()
        self._vanished.require_few(self._settings.max_missing)

    def _sources(self) -> Sources:
        linked = sorted(str(one) for one in self._images.linked)
        return Sources(str(self._request.folder), tuple(linked))

    async def _learn_model(self, embedder: BulkEmbedder) -> tuple[Content, str]:
        """Return the first image that can be embedded, and the model id of the embedders."""
        self._progress.begin("asking an embedder", None)
        for content in self._journal.contents():
            model_id = await self._embed(embedder, content, None)
            if model_id is not None:
                return content, model_id
        raise self._nothing_usable()

    def _nothing_usable(self) -> BuildFailed:
        failure = next(self._journal.failures(), None)
        why = "there is none" if failure is None else f"{failure.path}: {failure.detail}"
        return BuildFailed(f"no image of {self._request.folder} could be embedded: {why}")

    async def _embed_all(self, embedder: BulkEmbedder, model_id: str) -> None:
        """Embed each content that has no vector yet, once."""
        count = await self._progress.run(self._kept.find_missing, model_id)
        self._progress.begin("embedding", count)
        waiting = self._journal.missing_contents()

        async def work() -> None:
            for content in waiting:
                await self._embed(embedder, content, model_id)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.in_flight, count)):
                    group.create_task(work())
        except* (SimileError, OSError, sqlite3.Error) as errors:
            raise errors.exceptions[0] from None

    async def _embed(
        self, embedder: BulkEmbedder, content: Content, model_id: str | None
    ) -> str | None:
        """Embed a content into the journal; return its model id, or None if the image failed."""
        try:
            image = await self._fitter.image(content, model_id, embedder)
            embedded = await embedder.embed(image)
        except BuildFailed:
            raise
        except (SimileError, OSError) as error:
            # Its copies fail with it.
            files = self._journal.fail_content(content.sha256, code_of(error), str(error))
            self._progress.advance(files, failed=True)
            return None
        if model_id is not None and embedded.model_id != model_id:
            message = (
                f"the embedders answer as {embedded.model_id} and as {model_id}: "
                "let all embedders run the same model, then run the build again"
            )
            raise BuildFailed(message)
        self._journal.put_vector(content.sha256, embedded.model_id, embedded.embedding.vector)
        self._embedded += 1
        self._progress.advance()
        return embedded.model_id

    def _publish(self, model_id: str) -> Manifest:
        """Write every file of the new version, publish and activate it; in a thread."""
        building = self._volume.home(self._request.collection) / BUILDING
        try:
            staging, manifest = write_version(
                building,
                self._sources(),
                self._journal,
                model_id,
                self._kept,
                self._settings,
                progress=self._progress,
            )
            versions.publish(self._volume, staging, manifest)
        finally:
            sweep(building)
        self._journal.forget_vectors()
        if self._settings.keep_versions:
            versions.prune(
                self._volume,
                manifest.collection,
                keep=self._settings.keep_versions,
                min_age_seconds=_PRUNED_AFTER_SECONDS,
            )
        return manifest

    def _report(self, manifest: Manifest, *, published: bool) -> BuildReport:
        embedded = self._embedded if published else 0
        return BuildReport(
            manifest=manifest,
            embedded=embedded,
            reused=manifest.count - embedded,
            failures=tuple(self._journal.failures()),
            vanished=self._vanished,
            seconds=time.monotonic() - self._started,
            published=published,
            pinned=pin.pinned(self._volume, manifest.collection),
        )
