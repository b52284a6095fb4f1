"""`simile up`: the composition root of the whole house on one machine.

All services in this process on the in-memory broker, or over RabbitMQ, or as child processes.
Ready means that a real query was answered over HTTP, nothing less.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import structlog
from PIL import Image

from services import sample
from services.client import key_headers
from services.embedder import service as embedder
from services.embedder.settings import EmbedderSettings
from services.searcher import builder
from services.searcher import service as searcher
from services.searcher.build_metrics import BuildMetrics, MeasuredProgress
from services.searcher.builder import BuildReport, BuildRequest
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared import lifecycle
from services.shared.collection import Volume
from services.shared.errors import (
    IndexCorrupt,
    InvalidSettings,
    MalformedRequest,
    NoIndex,
    SimileError,
    UnknownCollection,
)
from services.shared.host import amqp_broker, broker_check
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.gauges import BrokerMetrics
from services.shared.messaging.memory import MemoryBroker
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import admin
from services.shared.telemetry.loop import watched_loop
from services.shared.telemetry.metrics import ReleaseMetrics
from services.upload import app as upload
from services.upload.settings import UploadSettings

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 0.5
_SAMPLE: Final = "sample"
_NO_ENTRY: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Every service's settings at once."""

    shared: SharedSettings
    upload: UploadSettings
    embedder: EmbedderSettings
    searcher: SearcherSettings
    index: IndexSettings

    @classmethod
    def read(
        cls,
        root: Path | None,
        amqp_url: str | None,
        *,
        upload: Mapping[str, object] | None = None,
        index: Mapping[str, object] | None = None,
    ) -> LocalSettings:
        """From the environment; what is given and not None goes before it."""
        return cls(
            shared=load(SharedSettings, root=root, amqp_url=amqp_url),
            upload=load(UploadSettings, **(upload or {})),
            embedder=load(EmbedderSettings),
            searcher=load(SearcherSettings),
            index=load(IndexSettings, **(index or {})),
        )


@dataclass(frozen=True, slots=True)
class Source:
    """The collection that `up` keeps current: its name and the folder of its images."""

    collection: str
    folder: Path


class Services(Protocol):
    """All services, wherever they run."""

    async def start(self) -> str:
        """Start them; the base URL of upload, which may not answer yet."""

    async def watch(self) -> None:
        """Return never; raise StageDied when a service can't be kept running."""

    async def stop(self) -> None:
        """Drain in the order of a query's walk, upload first, so that nothing taken is lost."""


class InProcess:
    """Every service as tasks of this event loop, sharing one broker."""

    def __init__(self, settings: LocalSettings, broker: Broker, telemetry: Telemetry) -> None:
        self._settings = settings
        self._broker = broker
        self._telemetry = telemetry
        self._running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def start(self) -> str:
        """Start embedder, searcher and upload; the base URL."""
        settings, started = self._settings, asyncio.get_running_loop().create_future()
        common = {"telemetry": self._telemetry}
        # In the order in which `stop` drains them: the front first.
        stops = [asyncio.Event() for _ in range(3)]
        works = (
            upload.run(
                settings.upload, settings.shared, self._broker,
                stop=stops[0], started=started, **common,
            ),
            embedder.run(
                settings.embedder, settings.shared, self._broker, stop=stops[1], **common
            ),
            searcher.run(
                settings.searcher, settings.shared, self._broker, stop=stops[2], **common
            ),
        )  # fmt: skip
        for name, stop, work in zip(("upload", "embedder", "searcher"), stops, works, strict=True):
            self._running.append((stop, asyncio.create_task(work, name=name)))
        tasks = {task for _, task in self._running}
        await asyncio.wait({started, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await self.watch()
        url: str = await started
        return url

    async def watch(self) -> None:
        """Wait for the first service that ends, and raise what it died of."""
        done, _ = await asyncio.wait(
            {task for _, task in self._running}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            await task

    async def stop(self) -> None:
        """Drain upload, then embedder, then searcher."""
        for stop, task in self._running:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def local_broker(
    shared: SharedSettings, name: str, telemetry: Telemetry, stop: asyncio.Event
) -> AsyncIterator[Broker]:
    """RabbitMQ where the settings name one, else a broker in memory; started, then closed.

    Raises StoppedEarly when `stop` is set before RabbitMQ answers.
    """
    seen = BrokerMetrics(telemetry.registry)
    broker: Broker = (
        MemoryBroker() if shared.amqp_url is None else amqp_broker(shared, name, seen.reconnected)
    )
    try:
        await lifecycle.started(stop, broker.start(topology.ALL))
        async with seen.watching(broker):
            yield broker
    finally:
        await broker.close()


def source_of(shared: SharedSettings, images: Path | None, collection: str | None) -> Source:
    """The images to search: the folder given, or a sample collection drawn on first use.

    Raises InvalidSettings for what can't be a collection's name.
    """
    if collection is not None:
        try:
            Volume(shared.root).home(collection)
        except MalformedRequest as error:
            raise InvalidSettings(str(error)) from error
    if images is None:
        folder = shared.root / ".sample" / _SAMPLE
        if not folder.is_dir():
            _log.info("drawing a sample collection", action="draw_sample", folder=str(folder))
            sample.draw_sample(folder)
        return Source(collection or _SAMPLE, folder)
    return Source(collection or collection_name(images), images.resolve())


def collection_name(folder: Path) -> str:
    """A collection's name made from the folder's: lower case, other characters become `-`."""
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")
    return name[:63] or "images"


async def up(
    services: Services,
    keeper: Keeper,
    *,
    stop: asyncio.Event,
    announce: Callable[[str], None],
) -> None:
    """Run the services until `stop`, the keeper's collection current behind them.

    `announce` gets the URL once a query was answered.
    """
    try:
        url = await services.start()
        await lifecycle.supervise(
            stop, {"services": services.watch(), "index": keeper.keep(url, announce)}
        )
    finally:
        await services.stop()


@dataclass(frozen=True, slots=True)
class Keeper:
    """Keeps one collection's index in step with its folder."""

    settings: LocalSettings
    broker: Broker
    source: Source
    progress: Progress
    metrics: BuildMetrics

    async def keep(self, url: str, announce: Callable[[str], None]) -> None:
        """Build, then announce; an index that already serves this folder is announced first.

        Never returns.
        """
        if self._serves():
            # At once, since a changed model means that nothing is answered before the refresh.
            await asyncio.gather(self._announce(url, announce), self._refresh())
        else:
            await self.build()
            await self._announce(url, announce)
        await asyncio.Event().wait()

    async def _announce(self, url: str, announce: Callable[[str], None]) -> None:
        await _until_answered(url, self.source.collection)
        announce(url)

    async def build(self) -> BuildReport:
        """Build what changed since the active version, and publish it."""
        request = BuildRequest(collection=self.source.collection, folder=self.source.folder)
        progress = MeasuredProgress(request.collection, self.metrics, self.progress)
        try:
            return await builder.build(
                request,
                self.settings.index,
                self.settings.shared,
                self.broker,
                Volume(self.settings.shared.root),
                progress=progress,
            )
        finally:
            progress.end()

    async def _refresh(self) -> None:
        try:
            await self.build()
        except SimileError as error:
            # What is served stays good; only the newest changes are missing from it.
            _log.warning(str(error), action=error.code, collection=self.source.collection)

    def _serves(self) -> bool:
        volume, collection = Volume(self.settings.shared.root), self.source.collection
        try:
            manifest = volume.manifest(collection, volume.active(collection))
        except (UnknownCollection, NoIndex, IndexCorrupt):
            return False
        return Path(manifest.images_root) == self.source.folder


async def build_index(
    settings: LocalSettings, source: Source, *, stop: asyncio.Event, progress: Progress
) -> BuildReport | None:
    """Build one index version over RabbitMQ, or with an embedder of our own where there is none.

    None when `stop` was set first: what was embedded so far is kept for the next run.
    """
    telemetry, port = Telemetry(), settings.index.admin_port
    async with contextlib.AsyncExitStack() as serving:
        broker = await serving.enter_async_context(
            local_broker(settings.shared, "simile index build", telemetry, stop)
        )
        if port is not None:
            host = settings.shared.admin_host
            await serving.enter_async_context(
                admin(telemetry.health, telemetry.registry, host, port)
            )
        keeper = Keeper(settings, broker, source, progress, BuildMetrics(telemetry.registry))
        build = asyncio.create_task(keeper.build())
        stopping = asyncio.create_task(stop.wait())
        tasks: set[asyncio.Task[Any]] = {build, stopping}
        if settings.shared.amqp_url is None:
            work = embedder.run(
                settings.embedder,
                settings.shared,
                broker,
                stop=asyncio.Event(),
                telemetry=telemetry,
            )
            tasks.add(asyncio.create_task(work, name="embedder"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {build, stopping}:
                await task
            return await build if build in done else None
        finally:
            await lifecycle.cancel(*tasks)


async def _until_answered(url: str, collection: str) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (120, 160, 200)).save(picture, "PNG")
    async with aiohttp.ClientSession(headers=key_headers()) as session:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                answer = await session.post(
                    f"{url}/v1/search",
                    params={"collection": collection},
                    data=picture.getvalue(),
                    ssl=False,  # it asks itself, by an address that its certificate may not name
                )
                if answer.ok:
                    return
                if answer.status in _NO_ENTRY:
                    message = (
                        "`simile up` asks a first query before it says ready: set SIMILE_API_KEY "
                        "to a key of SIMILE_UPLOAD_API_KEYS_FILE with the scope read"
                    )
                    raise InvalidSettings(message)
            await asyncio.sleep(_POLL_SECONDS)


@contextlib.asynccontextmanager
async def in_process(
    settings: LocalSettings, telemetry: Telemetry, stop: asyncio.Event
) -> AsyncIterator[tuple[Services, Broker]]:
    """The services in this process with their broker and admin server. Raises StoppedEarly."""
    shared = settings.shared
    ReleaseMetrics(telemetry.registry).show("up")
    async with (
        local_broker(shared, "simile up", telemetry, stop) as broker,
        admin(telemetry.health, telemetry.registry, shared.admin_host, shared.admin_port),
        watched_loop(telemetry.health, telemetry.registry),
    ):
        telemetry.health.ready_when("broker", broker_check(broker))
        yield InProcess(settings, broker, telemetry), broker
