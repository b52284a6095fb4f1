"""The embedder: consumers, a work queue, worker threads, and a result publisher.

Consumer -> WorkQueue -> WorkerThreads (Decoder, Worker) -> ResultPublisher
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

import structlog

from services.embedder.batcher import BatchPolicy
from services.embedder.consumer import Consumer
from services.embedder.decoding import Decoder
from services.embedder.isolation import CrashIsolation
from services.embedder.job import InFlight
from services.embedder.metrics import EmbedderMetrics, Instruments, show_devices
from services.embedder.models.loading import load
from services.embedder.models.model import Model
from services.embedder.results import DEFAULT_TIMING, ResultPublisher, Timing
from services.embedder.settings import EmbedderSettings
from services.embedder.work_queue import WorkQueue
from services.embedder.worker import Worker, WorkerThreads
from services.shared import cores, lifecycle
from services.shared.contracts import EmbedRequest
from services.shared.errors import UndecodableMessage
from services.shared.imaging import Limits
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Queue
from services.shared.messaging.quarantine import Quarantine
from services.shared.messaging.subscription import BadMessages, Subscription
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import lasting
from services.shared.telemetry.watchdog import StallThresholds

_log = structlog.get_logger(__name__)

_MIN_PREFETCH: Final = 16

Load = Callable[[EmbedderSettings, Limits], Sequence[Model]]
"""Returns a model for each worker."""


async def run(
    settings: EmbedderSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
) -> None:
    """Serve with the model that the settings name until `stop`, then finish what was taken.

    Raises StageDied, WeightsUnavailable, InvalidSettings, MissingExtra, RuntimeUnfit.
    """
    await run_with(load, settings, shared, broker, stop=stop, telemetry=telemetry)


async def run_with(
    load: Load,
    settings: EmbedderSettings,
    shared: SharedSettings,
    broker: Broker,
    *,
    stop: asyncio.Event,
    telemetry: Telemetry,
) -> None:
    """Do the same as `run` with any models."""
    telemetry.health.ready_when("model", lambda: "the model is being loaded")
    loading = asyncio.to_thread(load, settings, shared.image_limits)
    models = await lifecycle.unless_stopped(stop, loading)
    if models is not None:
        await Embedder(models, settings, shared, broker, telemetry).run(stop)


class Embedder:
    """Embeds the images of the broker's queues with the same model in each worker.

    Attributes:
        queue: holds the images until a thread takes them.
    """

    def __init__(
        self,
        models: Sequence[Model],
        settings: EmbedderSettings,
        shared: SharedSettings,
        broker: Broker,
        telemetry: Telemetry,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        """Connect the parts; `models` has one entry for each worker."""
        model = models[0]
        self._models = models
        self._settings = settings
        self._drain_timeout_seconds = shared.drain_timeout_seconds
        self._health = telemetry.health
        self._health.ready_when("model", lambda: "the model is warming up")
        self._instruments = Instruments(
            EmbedderMetrics(telemetry.registry), telemetry.tracing.tracer("embedder")
        )
        self._metrics = self._instruments.metrics
        self._in_flight = InFlight(self._instruments.watchdogs)
        self._batch_limit = settings.max_batch_size or model.batch_limit
        self._decode_threads = _decode_threads(settings, model)
        policy = BatchPolicy(
            max_images=self._batch_limit,
            max_wait_seconds=settings.max_batch_wait_seconds,
            workers=len(models),
            chunk_images=model.chunk_images,
        )
        self.queue = WorkQueue(
            policy, self._instruments.decoding, workers_decode=self._decode_threads == 0
        )
        quarantine = Quarantine(
            broker,
            replica=shared.replica,
            model_id=model.model_id,
            keeps_messages=settings.quarantine_images,
        )
        self._results = ResultPublisher(
            broker, quarantine, self._in_flight, self._instruments, model, timing
        )
        self._threads = WorkerThreads(
            self.queue,
            Decoder(model, shared.image_limits, self.queue, self._metrics),
            self._results,
            self._instruments,
            decode_threads=self._decode_threads,
            decode_timeout_seconds=settings.decode_timeout_seconds,
        )
        isolation = CrashIsolation(broker, self._metrics, max_crashes=settings.most_deaths)
        self._consumer = Consumer(
            self.queue, self._results, self._in_flight, isolation, self._metrics
        )
        bad = BadMessages(self._count_bad, quarantine)
        prefetch = max(_MIN_PREFETCH, 2 * self._batch_limit * len(models))
        prefetches = {topology.EMBED: prefetch, topology.EMBED_BULK: prefetch}
        prefetches[topology.EMBED_SUSPECTS] = 1
        self._subscriptions = {
            queue: _subscription(broker, queue, bad, limit) for queue, limit in prefetches.items()
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Warm up, serve until `stop`, then finish what was taken. Raises StageDied."""
        try:
            workers = [
                Worker(model, self._metrics, self._instruments.model) for model in self._models
            ]
            await self._threads.start(workers)
            self._add_health_checks()
            self._show()
            await self._serve(stop)
        finally:
            self._results.close()
            self.queue.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        stages = {"threads": self._threads.run(), "results": self._results.run()}
        for queue, subscription in self._subscriptions.items():
            stages[f"intake {queue.name}"] = self._consumer.consume(queue, subscription)
        try:
            await lifecycle.supervise(stages, until=stop, drain=self._drain)
        finally:
            for subscription in self._subscriptions.values():
                await subscription.close()

    async def _drain(self) -> None:
        """Take no more images, give back those that no thread decodes yet, finish the others."""
        for subscription in self._subscriptions.values():
            await subscription.cancel()
        not_started = self.queue.take_back()
        for job in not_started:
            job.delivery.reject(requeue=True)
        self._in_flight.remove(len(not_started))
        await lifecycle.wait_idle(
            self._in_flight.wait_empty(), self._drain_timeout_seconds, lambda: self._in_flight.count
        )

    def _count_bad(self) -> None:
        self._metrics.undecodable.inc()
        self._metrics.quarantined.labels(UndecodableMessage.code).inc()

    def _add_health_checks(self) -> None:
        """Watch every stage; not earlier, since a model may warm up for long."""
        health, settings = self._health, self._settings
        thresholds = StallThresholds(settings.unready_after_seconds, settings.dead_after_seconds)
        for watchdog in self._instruments.watchdogs:
            thresholds.watch(health, watchdog.what, watchdog.stalled)
        thresholds.watch(health, "images", self._in_flight.progress.stalled)
        for queue, subscription in self._subscriptions.items():
            name = f"intake {queue.name}"
            health.ready_when(name, subscription.unready)
            health.live_when(name, lasting(subscription.stalled, settings.dead_after_seconds))

    def _show(self) -> None:
        """Log what runs the model, and set the metrics that stay the same."""
        metrics, model, runtime = self._metrics, self._models[0], self._models[0].runtime
        workers = len(self._models)
        _log.info("model ready", action="model_ready", model_id=model.model_id,
                  workers=workers, **asdict(runtime))  # fmt: skip
        metrics.model.labels(
            model.model_id, runtime.library, runtime.precision, runtime.device
        ).set(workers)
        metrics.batch_limit.set(self._batch_limit)
        metrics.decode_threads.set(self._decode_threads or workers)
        metrics.in_flight.set_function(lambda: self._in_flight.count)
        metrics.stuck_decodes.set_function(lambda: self.queue.stuck)
        if runtime.device != "cpu":
            # Not at the top: importing torch takes seconds, and an image for CPUs holds none.
            show_devices(metrics, importlib.import_module("torch").cuda)


def _subscription(
    broker: Broker, queue: Queue, bad: BadMessages, prefetch: int
) -> Subscription[EmbedRequest]:
    return Subscription(broker, lambda: queue, (EmbedRequest,), bad, prefetch=prefetch)


def _decode_threads(settings: EmbedderSettings, model: Model) -> int:
    """Return the number of threads that only decode; 0 where workers decode for themselves."""
    if settings.decode_threads is not None:
        return settings.decode_threads
    return 0 if model.runtime.device == "cpu" else cores.available()
