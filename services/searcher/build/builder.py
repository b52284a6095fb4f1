"""Builds an index version from a folder of images; embeds only new and changed images.

Vectors come through the bulk queue from the same embedders that serve queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import structlog

from services.searcher.admin import pin, versions
from services.searcher.build import disk_errors
from services.searcher.build.build_lock import locked
from services.searcher.build.build_thread import BuildThread
from services.searcher.build.bulk_embedder import BulkEmbedder
from services.searcher.build.journal import Content, FailedImage, FileFacts, Journal
from services.searcher.build.shown_build import shown_on_volume
from services.searcher.build.source import folder as source
from services.searcher.build.source.build_limits import BuildLimits
from services.searcher.build.source.fingerprint import fingerprint
from services.searcher.build.source.fitting import Fitter
from services.searcher.build.version_writer import PreviousVersion, sweep, write_version
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.shared import cores, lifecycle
from services.shared.errors import BuildFailed, SimileError, UnknownItem
from services.shared.messaging.broker import Broker
from services.shared.messaging.request_reply import Inbox
from services.shared.settings import SharedSettings
from services.shared.volume.build_progress import BUILDING
from services.shared.volume.items import ITEMS
from services.shared.volume.manifest import Manifest
from services.shared.volume.volume import Volume

_log = structlog.get_logger(__name__)

_PRUNED_AFTER_SECONDS: Final = 600
_READERS: Final = min(4, cores.available())
_BATCH_FILES: Final = 256


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
        self._progress = BuildThread(progress)
        self._embedded = 0
        self._started = time.monotonic()

    async def run(self, embedder: BulkEmbedder) -> BuildReport:
        folder = source.identity(self._request.folder)
        await self._progress.run(self._read_all)
        first, model_id = await self._learn_model(embedder)
        previous = await self._progress.run(self._previous, model_id)
        if previous is not None and previous.holds_content(first.sha256):
            self._embedded -= 1
        await self._embed_all(embedder, model_id, previous)
        source.require_same(self._request.folder, folder)
        if not self._journal.usable():
            raise self._nothing_usable()
        if previous is not None and await self._progress.run(
            previous.is_current, self._journal, self._request.folder, self._settings
        ):
            self._journal.forget_vectors()
            return self._report(previous.manifest, published=False)
        manifest = await self._progress.run(self._publish, model_id, previous)
        report = self._report(manifest, published=True)
        _log.info(
            "index published", action="index_published", collection=manifest.collection,
            index_version=manifest.version, count=manifest.count, embedded=report.embedded,
            failed=len(report.failures), pinned=report.pinned,
        )  # fmt: skip
        return report

    def _read_all(self) -> None:
        """Read every file's hash and header, in a thread; leave out files that are not images."""
        folder = self._request.folder
        total = self._journal.list_images(source.list_images(folder))
        if not total:
            message = f"{folder} holds no files: give a folder of images"
            raise BuildFailed(message)
        self._progress.begin("reading", total)
        with ThreadPoolExecutor(_READERS, "read") as readers:
            unread = self._journal.unread()
            while some := list(islice(unread, _BATCH_FILES)):
                reading = [
                    (path, readers.submit(fingerprint, folder, path, known, self._limits))
                    for path, known in some
                ]
                for path, facts in reading:
                    self._note_file(path, facts)
        self._journal.commit()

    def _note_file(self, path: str, facts: Future[FileFacts]) -> None:
        try:
            self._journal.put_file(path, facts.result())
        except (SimileError, OSError) as error:
            self._journal.fail_file(path, _code(error), str(error))
            self._progress.advance(failed=True)
        else:
            self._progress.advance()

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

    def _previous(self, model_id: str) -> PreviousVersion | None:
        if (version := pin.base_version(self._volume, self._request.collection)) is None:
            return None
        try:
            previous = PreviousVersion(self._volume, self._request.collection, version)
        except SimileError as error:
            _log.warning(str(error), action=error.code, collection=self._request.collection)
            return None
        return previous if previous.manifest.model_id == model_id else None

    async def _embed_all(
        self, embedder: BulkEmbedder, model_id: str, previous: PreviousVersion | None
    ) -> None:
        """Embed each content without a vector, once."""
        known = None if previous is None else previous.directory / ITEMS
        count = await self._progress.run(self._journal.missing, model_id, known)
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
            # All copies of the content fail with it.
            files = self._journal.fail_content(content.sha256, _code(error), str(error))
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

    def _publish(self, model_id: str, previous: PreviousVersion | None) -> Manifest:
        """Write every file of the new version, publish and activate it; in a thread."""
        building = self._volume.home(self._request.collection) / BUILDING
        try:
            staging, manifest = write_version(
                building,
                self._request.collection,
                self._request.folder,
                self._journal,
                model_id,
                previous,
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
            seconds=time.monotonic() - self._started,
            published=published,
            pinned=pin.pinned(self._volume, manifest.collection),
        )


def _code(error: SimileError | OSError) -> str:
    return error.code if isinstance(error, SimileError) else UnknownItem.code
