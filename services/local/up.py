"""Runs all services on one machine for `simile up`, and builds an index for `simile index build`.

The services run in this process, with the in-memory broker or RabbitMQ, or as child processes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from pydantic_settings import BaseSettings

from services.embedder import service as embedder
from services.embedder.settings import EmbedderSettings
from services.local.index_refresher import IndexBuild, IndexRefresher
from services.local.process_manager import ChildProcesses
from services.local.running_up import noted
from services.local.source import Source
from services.searcher import service as searcher
from services.searcher.build.build_metrics import BuildMetrics
from services.searcher.build.builder import BuildReport
from services.searcher.progress import Progress
from services.searcher.settings import IndexSettings, SearcherSettings
from services.shared import lifecycle
from services.shared.errors import SimileError, StageDied
from services.shared.listening import free_port, is_free
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker
from services.shared.messaging.memory import MemoryBroker
from services.shared.messaging.metrics import BrokerMetrics
from services.shared.process import amqp_broker, broker_check
from services.shared.settings import SharedSettings, load
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import admin
from services.shared.telemetry.loop import watched_loop
from services.shared.telemetry.metrics import ReleaseMetrics
from services.shared.volume.volume import Volume
from services.upload import app as upload
from services.upload.settings import UploadSettings


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """Holds the settings of all services."""

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
        admin_port: int | None = None,
        upload: Mapping[str, object] | None = None,
        index: Mapping[str, object] | None = None,
    ) -> LocalSettings:
        """Read them from the environment; arguments that are not None go before it."""
        return cls(
            shared=load(SharedSettings, root=root, amqp_url=amqp_url, admin_port=admin_port),
            upload=load(UploadSettings, **(upload or {})),
            embedder=load(EmbedderSettings),
            searcher=load(SearcherSettings),
            index=load(IndexSettings, **(index or {})),
        )

    def serving(self, source: Source, *, quiet: bool) -> LocalSettings:
        """Return them as `up` serves the source; what the environment sets stays.

        The source is the default collection, and a drawn sample beside it is hidden. The admin port
        is another one where 9090 is taken. quiet: log warnings alone.
        """
        shared, hidden = self.shared, source.hidden(Volume(self.shared.root))
        served = {"default_collection": source.collection, "hidden_collections": hidden or ""}
        hosted: dict[str, object] = {"log_level": "warning"} if quiet else {}
        if not is_free(shared.admin_host, shared.admin_port):
            hosted["admin_port"] = free_port(shared.admin_host)
        return replace(
            self,
            shared=shared.model_copy(update=_unset(shared, hosted)),
            upload=self.upload.model_copy(update=_unset(self.upload, served)),
        )


def _unset(settings: BaseSettings, values: Mapping[str, object]) -> dict[str, object]:
    """Return the values of those fields that are not set."""
    return {name: value for name, value in values.items() if name not in settings.model_fields_set}


class Services(Protocol):
    """Starts and stops all services."""

    async def start(self) -> str:
        """Start the services, and return the base URL of upload, which may not answer yet."""

    async def watch(self) -> None:
        """Wait until a service ends or can't be restarted, and raise the reason."""

    async def stop(self) -> None:
        """Drain the services in the order of a query's path, upload first, so that none is lost."""


class InProcess:
    """Runs every service as a task of this event loop, with a shared broker."""

    def __init__(self, settings: LocalSettings, broker: Broker, telemetry: Telemetry) -> None:
        self._settings = settings
        self._broker = broker
        self._telemetry = telemetry
        self._running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def start(self) -> str:
        """Start upload, embedder and searcher, and return the base URL of upload."""
        settings, started = self._settings, asyncio.get_running_loop().create_future()
        telemetry = self._telemetry
        # In the order in which `stop` drains them.
        stops = [asyncio.Event() for _ in range(3)]
        works = (
            upload.run(
                settings.upload, settings.shared, self._broker,
                stop=stops[0], started=started, telemetry=telemetry,
            ),
            embedder.run(
                settings.embedder, settings.shared, self._broker,
                stop=stops[1], telemetry=telemetry,
            ),
            searcher.run(
                settings.searcher, settings.shared, self._broker,
                stop=stops[2], telemetry=telemetry,
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
        """Wait until a service ends, and raise its error."""
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
    """Start RabbitMQ's adapter where the settings have a URL, or a broker in memory.

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


async def up(
    services: Services,
    refresher: IndexRefresher,
    *,
    stop: asyncio.Event,
    on_stop: Callable[[], None],
) -> None:
    """Run the services until `stop`, and refresh the index meanwhile.

    `on_stop` is called before the services drain. Raises the named error that ended one of them.
    """
    try:
        url = await services.start()
        await lifecycle.supervise(
            {"services": services.watch()}, until=stop, once={"index": refresher.refresh(url)}
        )
        on_stop()
    except StageDied as died:
        named = _named(died)
        raise named from named.__cause__
    finally:
        await services.stop()


def _named(died: StageDied) -> SimileError:
    """Return the named error that ended the stage, where there is one."""
    cause = died.__cause__
    if isinstance(cause, StageDied):
        return _named(cause)
    return cause if isinstance(cause, SimileError) else died


async def build_index(
    settings: LocalSettings, source: Source, *, stop: asyncio.Event, progress: Progress
) -> BuildReport | None:
    """Build an index version over RabbitMQ, or without it by an embedder in this process.

    Returns None when `stop` was set first: the vectors made so far are kept for the next run.
    """
    telemetry, port = Telemetry(), settings.index.admin_port
    async with contextlib.AsyncExitStack() as serving:
        broker = await serving.enter_async_context(
            local_broker(settings.shared, "simile index build", telemetry, stop)
        )
        if port is not None:
            host = settings.shared.admin_host
            await serving.enter_async_context(
                admin(telemetry.health, telemetry.registry, host, port, "SIMILE_INDEX_ADMIN_PORT")
            )
        metrics = BuildMetrics(telemetry.registry)
        work = IndexBuild(settings.shared, settings.index, broker, source, metrics)
        build = asyncio.create_task(work.run(progress))
        stopping = asyncio.create_task(stop.wait())
        tasks: set[asyncio.Task[Any]] = {build, stopping}
        if settings.shared.amqp_url is None:
            embedding = embedder.run(
                settings.embedder,
                settings.shared,
                broker,
                stop=asyncio.Event(),
                telemetry=telemetry,
            )
            tasks.add(asyncio.create_task(embedding, name="embedder"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {build, stopping}:
                await task
            return await build if build in done else None
        finally:
            await lifecycle.cancel(*tasks)


@contextlib.asynccontextmanager
async def in_process(
    settings: LocalSettings, telemetry: Telemetry, stop: asyncio.Event
) -> AsyncIterator[tuple[Services, Broker]]:
    """Run the services in this process with broker and admin server. Raises StoppedEarly."""
    shared = settings.shared
    ReleaseMetrics(telemetry.registry).show("up")
    async with (
        local_broker(shared, "simile up", telemetry, stop) as broker,
        admin(telemetry.health, telemetry.registry, shared.admin_host, shared.admin_port) as url,
        watched_loop(telemetry.health, telemetry.registry),
    ):
        telemetry.health.ready_when("broker", broker_check(broker))
        with noted(shared.root, [url]):
            yield InProcess(settings, broker, telemetry), broker


@contextlib.asynccontextmanager
async def child_processes(
    settings: LocalSettings, counts: Mapping[str, int], telemetry: Telemetry, stop: asyncio.Event
) -> AsyncIterator[tuple[Services, Broker]]:
    """Run the services as child processes, with a broker for the index. Raises StoppedEarly."""
    shared = settings.shared
    children = ChildProcesses(shared, settings.upload, counts)
    async with local_broker(shared, "simile up", telemetry, stop) as broker:
        with noted(shared.root, children.admin_urls):
            yield children, broker
