"""The embedder: images from two queues through the pipeline; interactive work goes first."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Final

import structlog

from services.embedder.decoding import Decoder
from services.embedder.device_use import show_devices
from services.embedder.job import Job
from services.embedder.loading import load
from services.embedder.metrics import EmbedderMetrics
from services.embedder.model import Model
from services.embedder.outlet import Outlet
from services.embedder.pipeline import Pipeline
from services.embedder.settings import EmbedderSettings
from services.embedder.suspects import Suspects, deaths_of, origin_of
from services.shared import lifecycle
from services.shared.contracts import EmbedRequest, codec
from services.shared.errors import ConsumerLost, UndecodableMessage
from services.shared.imaging import Limits
from services.shared.messaging import topology
from services.shared.messaging.broker import Broker, Consumer, Delivery, Queue
from services.shared.messaging.quarantine import Quarantine
from services.shared.settings import SharedSettings
from services.shared.telemetry import Telemetry
from services.shared.telemetry.health import lasting
from services.shared.telemetry.watchdog import Flow, Patience, Watchdog

_log = structlog.get_logger(__name__)

_LEAST_PREFETCH: Final = 16
_AT_ONCE: Final = 32

Load = Callable[[EmbedderSettings, Limits], Sequence[Model]]


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
    """`run` with any model."""
    limits = Limits(shared.image_max_bytes, shared.image_max_pixels, shared.image_max_aspect)
    health = telemetry.health
    health.ready_when("model", lambda: "the model is being loaded")
    models = await lifecycle.unless_stopped(stop, asyncio.to_thread(load, settings, limits))
    if models is None:
        return
    metrics = EmbedderMetrics(telemetry.registry)
    decoding, modelling, sending = (Watchdog(what) for what in ("decode", "model", "results"))
    tracer = telemetry.tracing.tracer("embedder")
    outlet = Outlet(
        broker,
        metrics,
        sending,
        tracer,
        model_id=models[0].model_id,
        dimension=models[0].dimension,
    )
    desk = _Desk(Flow([decoding, modelling, sending]))
    metrics.in_hand.set_function(lambda: desk.flow.in_hand)

    quarantine = Quarantine(
        broker,
        replica=shared.replica,
        model_id=models[0].model_id,
        keeps_messages=settings.quarantine_images,
    )

    async def finish(jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.culprit and job.error is not None:
                metrics.quarantined.labels(job.error.code).inc()
                queue = topology.EMBED if job.interactive else topology.EMBED_BULK
                await quarantine.put(job.delivery, queue, job.error, deaths=job.deaths)
        await outlet.finish(jobs)
        desk.settled(len(jobs))

    decoder = Decoder(
        models[0].prepare,
        limits,
        metrics,
        decoding,
        input_size=models[0].input_size,
        threads=settings.decode_threads,
        timeout_seconds=settings.decode_timeout_seconds,
    )
    pipeline = Pipeline(settings, models, decoder, metrics, modelling, tracer, finish)
    try:
        await pipeline.warm()
        patience = Patience(settings.unready_after_seconds, settings.dead_after_seconds)
        for stage in (decoding, modelling, sending):
            patience.watch(health, stage.what, stage.stalled)
        patience.watch(health, "images", desk.flow.stalled)
        runs = models[0].runtime
        metrics.model.labels(models[0].model_id, runs.library, runs.precision, runs.device).set(
            len(models)
        )
        _log.info("model ready", action="model_ready", model_id=models[0].model_id,
                  workers=len(models), **asdict(runs))  # fmt: skip
        batch_limit = settings.max_batch_size or models[0].batch_limit
        metrics.batch_limit.set(batch_limit)
        if runs.device != "cpu":
            # Not earlier: importing torch takes seconds, and an image for CPUs holds none.
            show_devices(metrics, importlib.import_module("torch").cuda)
        metrics.decode_threads.set(settings.decode_threads)
        prefetch = max(_LEAST_PREFETCH, 2 * batch_limit * len(models))
        suspects = Suspects(broker, metrics, most_deaths=settings.most_deaths)
        intakes = [
            Intake(
                broker,
                queue,
                prefetch_of,
                pipeline,
                metrics,
                desk,
                suspects=suspects,
                quarantine=quarantine,
            )
            for queue, prefetch_of in (
                (topology.EMBED, prefetch),
                (topology.EMBED_BULK, prefetch),
                (topology.EMBED_SUSPECTS, 1),
            )
        ]
        for intake in intakes:
            health.ready_when(f"intake {intake.queue.name}", intake.unready)
            deaf = lasting(intake.deaf, settings.dead_after_seconds)
            health.live_when(f"intake {intake.queue.name}", deaf)
        await _serve(pipeline, intakes, desk, stop, shared.drain_timeout_seconds)
    finally:
        pipeline.close()


async def _serve(
    pipeline: Pipeline,
    intakes: Sequence[Intake],
    desk: _Desk,
    stop: asyncio.Event,
    drain_timeout_seconds: float,
) -> None:
    drained = asyncio.Event()

    async def drain() -> None:
        await stop.wait()
        for intake in intakes:
            await intake.cancel()
        unstarted = pipeline.give_up_unstarted()
        for job in unstarted:
            job.delivery.reject(requeue=True)
        desk.settled(len(unstarted))
        try:
            async with asyncio.timeout(drain_timeout_seconds):
                await desk.idle.wait()
        except TimeoutError:
            _log.warning("drain timed out", action="drain_timeout", in_hand=desk.flow.in_hand)
        drained.set()
        await asyncio.Event().wait()

    stages = {f"intake {intake.queue.name}": intake.run() for intake in intakes}
    try:
        await lifecycle.supervise(drained, {**pipeline.stages(), **stages, "drain": drain()})
    finally:
        for intake in intakes:
            await intake.close()


class _Desk:
    """How many images are in hand."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.idle = asyncio.Event()
        self.idle.set()

    def taken(self) -> None:
        self.flow.taken()
        self.idle.clear()

    def settled(self, count: int) -> None:
        self.flow.settled(count)
        if self.flow.in_hand == 0:
            self.idle.set()


class Intake:
    """One queue's way into the pipeline, on a channel of its own."""

    def __init__(
        self,
        broker: Broker,
        queue: Queue,
        prefetch: int,
        pipeline: Pipeline,
        metrics: EmbedderMetrics,
        desk: _Desk,
        *,
        suspects: Suspects,
        quarantine: Quarantine,
    ) -> None:
        self.queue = queue
        self._broker = broker
        self._prefetch = prefetch
        self._pipeline = pipeline
        self._metrics = metrics
        self._desk = desk
        self._suspects = suspects
        self._quarantine = quarantine
        self._consumer: Consumer | None = None
        self._cancelled = False

    def unready(self) -> str | None:
        """Why no image can be taken now."""
        return None if self._consumer is not None else "not consuming: the broker is away"

    def deaf(self) -> str | None:
        """Why it takes nothing although the broker is there: what only a restart may mend."""
        return self.unready() if self._broker.ready and not self._cancelled else None

    async def run(self) -> None:
        """Take for ever, again after each loss of the queue, until cancelled."""
        while not self._cancelled:
            self._consumer = await self._broker.consume(self.queue, prefetch=self._prefetch)
            try:
                while True:
                    for delivery in await self._consumer.take(_AT_ONCE):
                        await self._accept(delivery)
            except ConsumerLost as error:
                if not self._cancelled:
                    _log.warning(str(error), action=error.code)
                    self._consumer = None
        await asyncio.Event().wait()

    async def cancel(self) -> None:
        """Take no more; what was taken can still be settled."""
        self._cancelled = True
        if self._consumer is not None:
            await self._consumer.cancel()

    async def close(self) -> None:
        """End the consumer; what isn't settled goes back to the queue."""
        if self._consumer is not None:
            await self._consumer.close()

    async def _accept(self, delivery: Delivery) -> None:
        try:
            message = codec.decode(delivery.type, delivery.body)
            if not isinstance(message, EmbedRequest):
                reason = f"{delivery.type} is not for {self.queue.name}"
                raise UndecodableMessage(reason)  # noqa: TRY301 (one way for both)
        except UndecodableMessage as error:
            await self._bury(delivery, error)
            return
        if delivery.redelivered:
            self._metrics.redelivered.inc()
            if await self._suspects.moved(delivery, self.queue):
                return
        self._desk.taken()
        interactive = origin_of(delivery, self.queue) is topology.EMBED
        deaths = deaths_of(delivery, self.queue)
        job = Job(message.slip, message.image, delivery, interactive, deaths)
        if verdict := self._suspects.verdict(deaths):
            self._pipeline.refuse(job, verdict)
        else:
            self._pipeline.submit(job)

    async def _bury(self, delivery: Delivery, error: UndecodableMessage) -> None:
        """What can never be handled is set aside; requeued it would come back for ever."""
        self._metrics.undecodable.inc()
        self._metrics.quarantined.labels(error.code).inc()
        await self._quarantine.put(delivery, self.queue, error)
        delivery.ack()
