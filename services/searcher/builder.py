"""Builds an index version from a folder of images, embedding only what changed.

Vectors come through the bulk queue from the same embedders that serve queries.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from services.searcher import publisher
from services.searcher.embedding import BulkEmbedder
from services.searcher.hashing import HashedImage, hash_image, read_image
from services.searcher.journal import Journal
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings
from services.searcher.source import SourceImage, list_images
from services.searcher.staging import Previous, Vectorbook, write_version
from services.shared import imaging, lifecycle
from services.shared.collection import Item, Manifest, Volume
from services.shared.errors import BuildFailed, BuildInProgress, SimileError, UnknownItem
from services.shared.messaging.broker import Broker
from services.shared.messaging.inbox import Inbox
from services.shared.settings import SharedSettings

_log = structlog.get_logger(__name__)

_BUILDING: Final = "building"


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build: the collection's name and the folder of its images (resolved)."""

    collection: str
    folder: Path


@dataclass(frozen=True, slots=True)
class FailedImage:
    """A file that was left out, and why."""

    path: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What a build did. published is False when nothing had changed since `version`."""

    version: str
    count: int
    embedded: int
    reused: int
    failures: tuple[FailedImage, ...]
    seconds: float
    recall: float
    published: bool


async def build(
    request: BuildRequest,
    settings: IndexSettings,
    shared: SharedSettings,
    broker: Broker,
    volume: Volume,
    *,
    progress: Progress,
) -> BuildReport:
    """Bring the collection's index in step with the folder, and activate it.

    Raises BuildInProgress, BuildFailed; what was embedded until then is kept for the next run.
    """
    home = volume.home(request.collection)
    try:
        home.mkdir(parents=True, exist_ok=True)
        with (
            _locked(home),
            contextlib.closing(Journal(home / _BUILDING / "journal.sqlite")) as journal,
        ):
            work = _Build(request, settings, volume, journal, progress)
            return await _supervised(work, settings, shared, broker)
    except (OSError, sqlite3.Error) as error:
        message = f"{home} can't be used: {error}"
        raise BuildFailed(message) from error


async def _supervised(
    work: _Build, settings: IndexSettings, shared: SharedSettings, broker: Broker
) -> BuildReport:
    """The work, with an inbox beside it that must not end first."""
    limits = imaging.Limits(
        shared.image_max_bytes, shared.image_max_pixels, shared.image_max_aspect
    )
    inbox = Inbox(broker, f"index-{shared.replica}", on_late=lambda: None)
    receiving = asyncio.create_task(inbox.run(), name="index inbox")
    building = asyncio.create_task(
        work.run(BulkEmbedder(broker, inbox, settings), limits), name="index build"
    )
    try:
        await asyncio.wait({building, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if not building.done():
            await receiving
        return await building
    finally:
        await lifecycle.cancel(building, receiving)


class _Build:
    """One run of a build, under the collection's lock."""

    def __init__(
        self,
        request: BuildRequest,
        settings: IndexSettings,
        volume: Volume,
        journal: Journal,
        progress: Progress,
    ) -> None:
        self._request = request
        self._settings = settings
        self._volume = volume
        self._journal = journal
        self._progress = progress
        self._failures: list[FailedImage] = []
        self._unusable: dict[str, SimileError | OSError] = {}
        self._embedded: set[str] = set()
        self._started = time.monotonic()

    async def run(self, embedder: BulkEmbedder, limits: imaging.Limits) -> BuildReport:
        images = await asyncio.to_thread(self._hash_all, limits)
        model_id = await self._learn_model(embedder, images)
        previous = await asyncio.to_thread(self._previous, model_id)
        missing = self._missing(images, model_id, previous)
        await self._embed_all(embedder, missing, model_id)
        images = self._usable(images)
        if not images:
            message = (
                f"no image of {self._request.folder} could be embedded: "
                f"{self._failures[0].path}: {self._failures[0].detail}"
            )
            raise BuildFailed(message)
        items = _items(images)
        known = previous.positions if previous is not None else {}
        embedded = len(self._embedded - known.keys())
        if previous is not None and previous.holds(items, self._request.folder, self._settings):
            return self._report(previous.manifest, embedded=0, published=False)
        vectorbook = Vectorbook(self._journal, model_id, previous)
        manifest = await asyncio.to_thread(self._publish, items, vectorbook)
        _log.info(
            "index published",
            action="index_published",
            collection=manifest.collection,
            index_version=manifest.version,
            count=manifest.count,
            embedded=embedded,
            failed=len(self._failures),
        )
        return self._report(manifest, embedded=embedded, published=True)

    def _hash_all(self, limits: imaging.Limits) -> list[HashedImage]:
        """In a thread: every file's hash and header; what isn't an image becomes a failure."""
        sources = list_images(self._request.folder)
        if not sources:
            message = f"{self._request.folder} holds no files: give a folder of images"
            raise BuildFailed(message)
        self._progress.begin("reading", len(sources))
        hashed = []
        for source in sources:
            try:
                hashed.append(hash_image(self._request.folder, source, limits, self._journal))
                self._progress.advance()
            except (SimileError, OSError) as error:
                self._fail(source, error)
        self._journal.commit()
        return hashed

    async def _learn_model(self, embedder: BulkEmbedder, images: Sequence[HashedImage]) -> str:
        """The embedders' model id, from the first image that they can embed."""
        for image in images:
            model_id = await self._embed(embedder, image, None)
            if model_id is not None:
                return model_id
        reason = self._failures[0].detail if self._failures else "there is none"
        message = f"no image of {self._request.folder} could be embedded: {reason}"
        raise BuildFailed(message)

    def _previous(self, model_id: str) -> Previous | None:
        version = publisher.active_version(self._volume, self._request.collection)
        if version is None:
            return None
        try:
            previous = Previous(self._volume, self._request.collection, version)
        except SimileError as error:
            _log.warning(str(error), action=error.code, collection=self._request.collection)
            return None
        return previous if previous.manifest.model_id == model_id else None

    def _missing(
        self, images: Sequence[HashedImage], model_id: str, previous: Previous | None
    ) -> list[HashedImage]:
        """One image for each content that has no vector yet."""
        by_content = {
            image.sha256: image for image in reversed(images) if image.sha256 not in self._unusable
        }
        return [
            image
            for sha256, image in by_content.items()
            if (previous is None or sha256 not in previous.positions)
            and self._journal.vector(sha256, model_id) is None
        ]

    async def _embed_all(
        self, embedder: BulkEmbedder, missing: Sequence[HashedImage], model_id: str
    ) -> None:
        self._progress.begin("embedding", len(missing))
        waiting = iter(missing)

        async def work() -> None:
            for image in waiting:
                await self._embed(embedder, image, model_id)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.in_flight, len(missing))):
                    group.create_task(work())
        except* (SimileError, sqlite3.Error) as errors:
            raise errors.exceptions[0] from None

    async def _embed(
        self, embedder: BulkEmbedder, image: HashedImage, model_id: str | None
    ) -> str | None:
        """Embed one file into the journal; its model id, or None when it failed by itself."""
        try:
            content = await asyncio.to_thread(read_image, self._request.folder, image)
            embedded = await embedder.embed(content)
        except BuildFailed:
            raise
        except (SimileError, OSError) as error:
            self._unusable[image.sha256] = error
            self._fail(image.source, error)
            return None
        if model_id is not None and embedded.model_id != model_id:
            message = (
                f"the embedders answer as {embedded.model_id} and as {model_id}: "
                "let them all run one model, then run the build again"
            )
            raise BuildFailed(message)
        self._journal.remember_vector(image.sha256, embedded.model_id, embedded.embedding.vector)
        self._embedded.add(image.sha256)
        self._progress.advance()
        return embedded.model_id

    def _usable(self, images: Sequence[HashedImage]) -> list[HashedImage]:
        """The images that have a vector; the copies of one that failed have failed with it."""
        told = {failure.path for failure in self._failures}
        for image in images:
            error = self._unusable.get(image.sha256)
            if error is not None and image.source.path not in told:
                self._fail(image.source, error)
        return [image for image in images if image.sha256 not in self._unusable]

    def _fail(self, source: SourceImage, error: SimileError | OSError) -> None:
        code = error.code if isinstance(error, SimileError) else UnknownItem.code
        # A name that isn't UTF-8 must not break the table that shows it.
        path = source.path.encode(errors="backslashreplace").decode()
        self._failures.append(FailedImage(path, code, str(error)))
        self._progress.advance(failed=True)

    def _publish(self, items: Sequence[Item], vectorbook: Vectorbook) -> Manifest:
        """In a thread: write every file of the new version, publish and activate it."""
        self._progress.begin("indexing", 1)
        staging, manifest = write_version(
            self._volume.home(self._request.collection) / _BUILDING,
            self._request.collection,
            self._request.folder,
            items,
            vectorbook,
            self._settings,
        )
        publisher.publish(self._volume, staging, manifest)
        self._journal.forget_vectors()
        self._progress.advance()
        return manifest

    def _report(self, manifest: Manifest, *, embedded: int, published: bool) -> BuildReport:
        return BuildReport(
            version=manifest.version,
            count=manifest.count,
            embedded=embedded,
            reused=manifest.count - embedded,
            failures=tuple(self._failures),
            seconds=time.monotonic() - self._started,
            recall=manifest.recall,
            published=published,
        )


@contextlib.contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Hold the collection's build lock. Raises BuildInProgress."""
    with (home / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"another build of {home.name} runs now; wait for it, or stop it"
            raise BuildInProgress(message) from None
        yield


def _items(images: Sequence[HashedImage]) -> list[Item]:
    return [
        Item(
            position=position,
            item_id=image.source.item_id,
            path=image.source.path,
            label=image.source.label,
            attributes=dict(image.source.attributes),
            width=image.width,
            height=image.height,
            sha256=image.sha256,
        )
        for position, image in enumerate(images)
    ]
